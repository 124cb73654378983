"""Live reads of one stream: the event stream, and the long poll. Moves data; decides nothing.

An event stream ends regularly when the stream is closed, when it is `EVENT_STREAM_S` old, and when
the node drains: the client reconnects with the last offset. When the stream is gone or the place is
lost, the connection breaks off, and the next request of the client gets the reason as its status.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from api.dialects.durable_streams.cursor import next_cursor
from api.dialects.durable_streams.event_stream import control_event, data_event
from api.dialects.durable_streams.row import Chunks
from api.dialects.durable_streams.tail import Tail
from api.dialects.durable_streams.tails import Tails
from api.hub.contracts import ReadingOutcome, Wire
from api.hub.hub import Hub
from api.readers.disconnect import DisconnectWatcher
from api.readers.expiry import break_off_at_expiry
from api.readers.place import take_place
from api.transport.extensions import WIRE, break_off
from shared.errors import Unavailable
from shared.streams.place import Place
from shared.streams.record import Entry, StreamInfo
from shared.streams.store import Reading, StreamStore

EVENT_STREAM_S = (45.0, 60.0)  # age at which an event stream ends, drawn for each
READ_BYTES = 1_048_576  # of one read of the log
RETRY_S = 0.5  # between two reads while Redis is away


@dataclass(frozen=True, slots=True)
class LiveStreams:
    """What live reads need of a node."""

    hub: Hub
    store: StreamStore
    tails: Tails


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A live read: of which stream, behind which place, with which cursor of the client."""

    owner: str
    path: str
    info: StreamInfo
    place: Place
    cursor: str


class LiveReader:
    """One waiting reader: a connection of the hub, which a drain and an expiry break off."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self.outcome: ReadingOutcome | None = None

    def break_off(self, outcome: ReadingOutcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            self._tail.wake()

    def left(self) -> None:
        self.break_off(ReadingOutcome.LEFT)


async def wait_for_change(
    live: LiveStreams, request: LiveRequest, receive: Receive, wait_s: float
) -> Reading | None:
    """Wait until the stream has changed behind the place of the request, at most `wait_s`.

    Returns:
        What came, if the node has all of it; None: it has to be read.

    Raises:
        Draining, Unavailable: as `Tails.held`.
    """
    until_s = asyncio.get_running_loop().time() + wait_s
    async with live.tails.held(request.owner, request.path) as tail:
        reader = LiveReader(tail)
        departure = DisconnectWatcher(receive, reader.left)
        live.hub.admit(reader, "long_poll")
        try:
            while (
                tail.top == request.place
                and not tail.is_closed
                and not tail.is_gone
                and reader.outcome is None
            ):
                left_s = until_s - asyncio.get_running_loop().time()
                if left_s <= 0 or not await tail.wait(left_s):
                    break
            return None if tail.is_behind else _reading_of(tail, request)
        finally:
            departure.close()
            live.hub.dismiss(reader)


def _reading_of(tail: Tail, request: LiveRequest) -> Reading | None:
    """Return what stands behind the place of a request; None: it has to be read."""
    entries = tail.entries_after(request.place)
    if entries is None or tail.top is None or tail.is_gone:
        return None
    info = request.info._replace(tail=tail.top, is_closed=tail.is_closed)
    return Reading("live", info, entries, tail.top)


class EventStream:
    """The answer to a read with `live=sse`, as an ASGI application."""

    def __init__(self, live: LiveStreams, request: LiveRequest, headers: Mapping[str, str]) -> None:
        self._live = live
        self._request = request
        self._headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await take_place(scope)
        request = self._request
        async with self._live.tails.held(request.owner, request.path) as tail:
            reader = LiveReader(tail)
            self._live.hub.admit(reader, "sse")
            departure = DisconnectWatcher(receive, reader.left)
            expiry_watch = break_off_at_expiry(scope, reader)
            try:
                start = {"type": "http.response.start", "status": 200, "headers": self._headers}
                await send(start)
                wire = scope.get("extensions", {}).get(WIRE)
                is_whole = await _Sending(self._live, request, tail, reader, send, wire=wire).run()
            finally:
                if expiry_watch is not None:
                    expiry_watch.cancel()
                departure.close()
                self._live.hub.dismiss(reader)
        if is_whole:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif reader.outcome is not ReadingOutcome.LEFT:
            break_off(scope)
            await DisconnectWatcher.wait(receive)


class _Sending:
    """The events of one event stream: see `Follower`.

    Args:
        wire: writes to the connection past `send`; None: the server has no such way.
    """

    def __init__(
        self,
        live: LiveStreams,
        request: LiveRequest,
        tail: Tail,
        reader: LiveReader,
        send: Send,
        *,
        wire: Wire | None,
    ) -> None:
        self._live = live
        self._request = request
        self._tail = tail
        self._reader = reader
        self._send = send
        self._wire = wire
        self.place = request.place
        self._is_closed = False
        self._has_left = asyncio.Event()  # the row
        self._followed = 0  # entries that came by the row

    async def run(self) -> bool:
        """Send until the end; return whether the response may end regularly."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + random.uniform(*EVENT_STREAM_S)
        heartbeat_s = self._live.hub.settings.heartbeat_s
        is_due = True  # a control event, also without data
        while self._reader.outcome is None:
            entries = await self._next()
            if entries is None:
                return False
            if entries or is_due or self._is_at_end:
                await self._write(entries)
                is_due = False
            if self._is_at_end:
                return True
            left_s = until_s - loop.time()
            if left_s <= 0:
                return True
            if self.place == self._tail.top and self._reader.outcome is None:
                is_due = not await self._wait(min(left_s, heartbeat_s))
        return self._reader.outcome in (ReadingOutcome.DRAINED, ReadingOutcome.ROTATED)

    async def _wait(self, timeout_s: float) -> bool:
        """Wait for something to do, in the row if possible; False: nothing came in time."""
        if self._wire is None or self._wire.is_paused:
            return await self._tail.wait(timeout_s)
        self._has_left.clear()
        self._followed = 0
        self._tail.row.join(self)
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_left.wait()
        except TimeoutError:
            return self._followed > 0
        finally:
            self._tail.row.discard(self)
        return True

    def follow(self, entry: Entry, chunks: Chunks) -> None:
        assert self._wire is not None
        self.place = entry.after
        key = (self._request.cursor, self.place == self._tail.top)
        if key not in chunks:
            body = self._events([entry])
            chunks[key] = b"%x\r\n%b\r\n" % (len(body), body)
        self._wire.write(chunks[key])
        self._count(1, len(chunks[key]))
        self._followed += 1
        if self._wire.is_paused:
            self.leave()

    def leave(self) -> None:
        self._tail.row.discard(self)
        self._has_left.set()

    @property
    def _is_at_end(self) -> bool:
        return self._is_closed and self.place == self._tail.top

    async def _next(self) -> Sequence[Entry] | None:
        """Return what comes next, perhaps nothing yet; None: the stream or the place is lost."""
        tail = self._tail
        if tail.is_gone:
            return None
        entries = tail.entries_after(self.place)
        self._is_closed = tail.is_closed
        if entries is not None:
            return entries
        try:
            reading = await self._live.store.read(
                self._request.owner, self._request.path, self.place, bytes_max=READ_BYTES
            )
        except Unavailable:
            await asyncio.sleep(RETRY_S)
            return ()
        if reading.state != "live":
            return None
        if not reading.entries:
            await tail.wait(RETRY_S)  # the tail is being read
        return reading.entries

    async def _write(self, entries: Sequence[Entry]) -> None:
        body = self._events(entries)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._count(len(entries), len(body))

    def _events(self, entries: Sequence[Entry]) -> bytes:
        """Return the events of entries, or the present state; go on to the place behind them."""
        pieces, cursor = list[bytes](), next_cursor(self._request.cursor, time.time())
        for entry in entries:
            self.place = entry.after
            pieces += [data_event(self._request.info.media, entry.data), self._control(cursor)]
        return b"".join(pieces) or self._control(cursor)

    def _count(self, events: int, size: int) -> None:
        counters = self._live.hub.counters
        counters.events_delivered += events
        counters.bytes_delivered += size

    def _control(self, cursor: str) -> bytes:
        is_at_tail = self.place == self._tail.top
        return control_event(
            self.place, cursor, is_up_to_date=is_at_tail, is_closed=is_at_tail and self._is_closed
        )
