"""Long poll: one JSON reply with the events after the cursor, sent as soon as there are any.

    {"events":[{"id":"1-42","type":"token","text":" Hello"}, …],"last_event_id":"1-43","done":false}

The reader is placed as in an NDJSON stream, and the events have the same bytes. Invariant: `done`
is true only when the reply contains `end`, or the cursor is the id of `end`. A reply has at most
about 1 MiB of events; the next long poll continues after them.
"""

from __future__ import annotations

import asyncio
import math
import re

from starlette.types import Receive

from api.dialects.native.fold import NDJSON
from api.errors import request_error
from api.hub.contracts import ReadingOutcome
from api.hub.hub import LOG_READ_S, Hub
from api.hub.position import Placement, Position
from api.hub.relay import Relay
from api.readers.disconnect import DisconnectWatcher
from shared.errors import Unavailable
from shared.log.event_bytes import RESET
from shared.log.ids import START, EventId
from shared.log.records import Meta

WAIT_S_MAX = 60.0
REPLY_BYTES_MAX = 1_048_576
# Every form in which JSON and scripts write a number: also 1e-7, and a random number's many digits.
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def parse_wait(text: str) -> float:
    """Return the query parameter `wait` in seconds.

    Raises:
        RequestError: 400, not a number from 0 to 60.
    """
    wait_s = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise request_error("wait_invalid", f"wait: a number from 0 to {WAIT_S_MAX:.0f}, seconds")
    return wait_s


async def long_poll(
    hub: Hub, meta: Meta, cursor: EventId, wait_s: float, *, receive: Receive | None = None
) -> bytes:
    """Return the body of the reply.

    Args:
        wait_s: how long to wait for an event once the log is read.
        receive: reports a client that disconnects, so that the wait ends at once.

    Raises:
        RequestError: as `Hub.reading`.
        Unavailable: as `Hub.reading`; also when the log is gone or could not be read in time.
    """
    async with hub.reading(meta) as relay:
        poll = _LongPollReader(hub, relay, cursor)
        departure = (
            DisconnectWatcher(receive, lambda: poll.break_off(ReadingOutcome.LEFT))
            if receive
            else None
        )
        hub.admit(poll, "long_poll")
        try:
            relay.join(poll)
            return await poll.reply(wait_s)
        finally:
            if departure is not None:
                departure.close()
            relay.leave(poll)
            hub.dismiss(poll)


class _LongPollReader:
    """A reader of the hub that takes one slice of the log and keeps it for the reply."""

    def __init__(self, hub: Hub, relay: Relay, cursor: EventId) -> None:
        self.position = Position(cursor, hub.now())
        self.is_queued = False
        self._hub = hub
        self._relay = relay
        self._log = relay.encoded_log(NDJSON)
        self._lines: list[bytes] = []
        self._last = cursor
        self._is_done = False
        self._is_settled = False  # the log has been read up to its top
        self._outcome: ReadingOutcome | None = None
        self._changed = asyncio.Event()

    def wake(self) -> None:
        if not self.is_queued:
            self._hub.wake(self)

    def break_off(self, outcome: ReadingOutcome) -> None:
        self._outcome = outcome
        self._changed.set()

    async def reply(self, wait_s: float) -> bytes:
        """Wait for the content of the reply, at most `wait_s` once the log is read.

        Raises:
            Unavailable: the log is gone, or could not be read in time.
        """
        await self._wait(self._hub.now() + wait_s)
        if self._outcome is ReadingOutcome.LOST:
            raise Unavailable("the log is gone")
        if not self._has_content and not self._is_settled:
            raise Unavailable("the log could not be read in time")
        events = b",".join(line for line in self._lines if line)
        done = b"true" if self._is_done else b"false"
        last = str(self._last).encode()
        return b'{"events":[%b],"last_event_id":"%b","done":%b}' % (events, last, done)

    @property
    def _has_content(self) -> bool:
        return bool(self._lines or self._is_done or self._outcome)

    async def _wait(self, until: float) -> None:
        """Wait for lines, an end or a break-off.

        While the log is not read, wait for `LOG_READ_S` more, so that a wait of 0 can be answered.
        """
        while not self._has_content:
            left_s = until + (0.0 if self._is_settled else LOG_READ_S) - self._hub.now()
            if left_s <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def pump(self, now: float) -> bool:
        """Take the events after the position, once; True: call again, more is being encoded."""
        if self._lines or self._is_done:
            return False
        relay = self._relay
        match self.position.place(relay.feed, now):
            case Placement.WAITING:
                self._hub.await_place(self)
                self._take_last_words()
                return False
            case Placement.RESET:
                self._hub.counters.reset(relay.meta.generation_id)
                self._take_aside(RESET)
        return self._take()

    def _take(self) -> bool:
        relay, start = self._relay, self.position.seq
        chunk, self.position.seq = self._log.slice(start, REPLY_BYTES_MAX)
        if chunk:
            self._hub.counters.events_delivered += self.position.seq - start
            self._hub.counters.bytes_delivered += len(chunk)
            # JSON has no line breaks of its own, so the lines are the events.
            self._lines.append(chunk[:-1].replace(b"\n", b","))
            self._last = relay.feed.ids.at(self.position.seq)
        is_at_top = self.position.seq == relay.feed.count
        if not chunk and not is_at_top:
            if self._log.is_refill_needed(start):
                relay.refill_soon()
                self._take_last_words()  # with a lost log there is no refill
                return False
            return True
        if is_at_top and relay.feed.is_ended:
            self._is_done = True
        elif is_at_top:
            self._take_last_words()
        self._is_settled = self._is_settled or relay.feed.is_up_to_date
        if self._lines or self._is_done or self._is_settled:
            self._changed.set()
        return False

    def _take_last_words(self) -> None:
        """Take the `end` of a generation whose log Redis has lost, if the relay has one."""
        if self._relay.unlogged_end is not None:
            self._take_aside(self._relay.unlogged_end)
            self._is_done = True
            self._changed.set()

    def _take_aside(self, raw: bytes) -> None:
        line = self._log.fold.aside(raw)
        assert line is not None  # NDJSON has a line for every event
        self._lines.append(line[:-1])
        self._last = START
