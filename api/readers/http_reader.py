"""One HTTP reader: a position in a log, and the `send` or the wire that takes the bytes.

A reader has no task and no queue. A change of the log wakes it, and in its turn it writes one slice
of the bytes after its position. While a write waits, nothing is buffered for the reader: when the
write completes, the reader catches up from the log. Invariant: the outcome is ENDED only after
`send` or the wire took the bytes of `end`, or of the entry at which the dialect is over; every
other outcome leaves the response unfinished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Send

from api.hub.broadcast import FollowerRow
from api.hub.contracts import HubPort, ReadingOutcome, Transport, Wire
from api.hub.position import Placement, Position
from api.hub.relay import Relay
from api.readers.asgi_step import Step
from api.readers.encoded_body import EncodedBody
from api.readers.slow_reader import BlockedWrite
from api.transport.unacknowledged import unacknowledged_bytes
from shared.log.event_bytes import RESET
from shared.log.fold import Dialect
from shared.log.ids import EventId


class Subscriber:
    """One reader of one generation over HTTP.

    Args:
        send: ASGI's; None if there is a wire, which then takes all bytes.
        port: the hub.
        on_over: called once with the outcome, in a later pass of the event loop.
        cursor: the last event id that the client has seen.
        transport: the connection below `send`, if the server exposes it.
        wire: writes to the connection without `send`, if the server has such a way.
        prefix: written immediately before the first bytes of the log, in the same chunk.
        body: of a compressed response; None: the bytes are written as they are.

    Attributes:
        position: where in the log it is. While it follows in a row, `position.seq` is stale: the
            row's `seq` counts.
        is_queued: it waits for its turn in the pump; the pump sets this.
        outcome: how the reading stopped; None: it goes on.
        row: the row in which it follows; None: it reads by itself.
        write: the wire's; only with a wire.
    """

    __slots__ = (
        "_blockage",
        "_body",
        "_chunk_bytes",
        "_is_last_chunk",
        "_log",
        "_on_over",
        "_port",
        "_prefix",
        "_relay",
        "_rest",
        "_send",
        "_sent_at",
        "_step",
        "_transport",
        "_wire",
        "is_queued",
        "outcome",
        "position",
        "row",
        "write",
    )

    def __init__(
        self,
        relay: Relay,
        dialect: Dialect,
        send: Send | None,
        port: HubPort,
        on_over: Callable[[ReadingOutcome], None],
        *,
        cursor: EventId,
        transport: Transport | None = None,
        wire: Wire | None = None,
        prefix: bytes = b"",
        body: EncodedBody | None = None,
    ) -> None:
        self.position = Position(cursor, port.now())
        if cursor.seq:
            port.counters.resume(relay.meta.generation_id)
        self.is_queued = False
        self.outcome: ReadingOutcome | None = None
        self._on_over: Callable[[ReadingOutcome], None] | None = on_over
        self._relay = relay
        self._log = relay.encoded_log(dialect)
        self._send = send
        self._port = port
        self._transport = transport
        self._wire = wire
        self.row: FollowerRow | None = None
        if wire is not None:
            self.write = wire.write
            wire.on_paused, wire.on_resumed = self._paused, self._resumed
        self._prefix = prefix
        self._body = body
        self._rest = memoryview(b"")  # of a slice that takes several turns to compress
        if body is not None:
            body.attach(relay, dialect)
        self._sent_at = port.now()
        self._step = None if send is None else Step(self._written)
        self._blockage: BlockedWrite | None = None
        self._chunk_bytes = 0
        self._is_last_chunk = False

    @property
    def _is_blocked(self) -> bool:
        return self._blockage is not None or (self._step is not None and self._step.is_busy)

    def wake(self) -> None:
        if not self.is_queued and not self._is_blocked:
            self._port.wake(self)

    def pump(self, now: float) -> bool:
        """Write the next slice, unless a write waits; True: there is more to write."""
        if self.row is not None or self._is_blocked or self.outcome is not None:
            return False
        if self._wire is not None and self._wire.is_paused:
            self._block(now)  # earlier bytes on this connection are still unsent
            return False
        if self._rest:
            self._write(b"", now)
            return True
        match self.position.place(self._relay.feed, now):
            case Placement.WAITING:
                self._port.await_place(self)
                return self._write_last_words(now)
            case Placement.RESET:
                self._port.counters.reset(self._relay.meta.generation_id)
                return self._write_aside(RESET, now, is_last=not self._log.dialect.restarts)
        start = self.position.seq
        chunk, self.position.seq = self._log.slice(start)
        if chunk:
            self._port.counters.events_delivered += self.position.seq - start
            self._write(chunk, now)
            if self._is_blocked or self.outcome is not None or self._rest:
                return bool(self._rest)
        if self.position.seq < self._relay.feed.count:
            return self._continue_or_finish(now)
        if self._relay.feed.is_ended or self.position.seq == self._log.over_at:
            self._end(now)
            return False
        if self._relay.unlogged_end is not None:
            return self._write_last_words(now)
        self._follow(now)
        return False

    def _follow(self, now: float) -> None:
        """Join the row of readers that have caught up, if the server has a wire.

        A row never waits for its log. A reader that begins at the top of a log which is not folded
        yet goes on by itself, because only such a reader can ask for trimmed entries.
        """
        if self._wire is None or self._prefix or not self._log.is_complete:
            return
        if self._body is None:
            group = self._relay.broadcast_group(self._log.dialect, is_chunked=True)
        else:
            self._put(self._body.take_opening(), now)
            if self._is_blocked or self.outcome is not None:
                return
            found = self._body.follow(self.position.seq, self.position.epoch)
            if found is None:
                return
            group = found
        self._relay.individual_readers.discard(self)
        group.admit(self, self.position.seq, now)

    def step_out(self, seq: int, sent_at: float) -> None:
        """Read by itself again, after entry `seq`. The row calls this when it removes the reader.

        Args:
            sent_at: when the row last wrote, loop time, s.
        """
        self.position.seq, self._sent_at = seq, sent_at
        if self._body is not None:
            self._body.leave(seq)
        if self.outcome is None:
            self._relay.individual_readers.add(self)
            self.wake()

    def _continue_or_finish(self, now: float) -> bool:
        """Return True if the next slice can be written now.

        If the dialect is over, finish. If the next entries were trimmed, have them read again, or
        write the last words if they are lost.
        """
        if self.position.seq == self._log.over_at:
            self._end(now)
            return False
        if self._log.is_refill_needed(self.position.seq):
            self._relay.refill_soon()
            return self._write_last_words(now)
        return True

    def _write_last_words(self, now: float) -> bool:
        """Write the `end` of a generation whose log Redis has lost, if the relay has one."""
        if self._relay.unlogged_end is None:
            return False
        return self._write_aside(self._relay.unlogged_end, now, is_last=True)

    def _write_aside(self, raw: bytes, now: float, *, is_last: bool) -> bool:
        """Write an event that is not in the log; True: there may be more to write."""
        chunk = self._log.fold.aside(raw)
        if chunk is None:
            self._finish(ReadingOutcome.LOST)
            return False
        self._is_last_chunk = is_last
        prefix, self._prefix = self._prefix, b""
        self._put_aside(prefix + chunk, now)
        if is_last and not self._is_blocked:
            self._end(now)
        return not self._is_blocked and self.outcome is None

    def _write(self, chunk: bytes, now: float) -> None:
        """Write bytes of the log, after the rest of an earlier slice."""
        prefix, self._prefix = self._prefix, b""
        if self._body is not None:
            prefix = self._body.aside_piece(prefix) if prefix else b""
            whole, size = self._rest or memoryview(chunk), self._body.piece_bytes_max
            self._rest = whole[size:]
            if self._rest or whole.obj is not chunk:
                chunk = bytes(whole[:size])
            chunk = self._body.log_piece(chunk, self.position.epoch)
        self._port.counters.bytes_delivered += len(chunk)
        self._put(prefix + chunk if prefix else chunk, now)

    def _put_aside(self, chunk: bytes, now: float) -> None:
        """Write bytes that are not in the log."""
        if self._body is not None and chunk:
            if self.row is not None:
                self.row.remove(self)  # the pieces of the row know nothing of these bytes
            chunk = self._body.aside_piece(chunk)
        self._put(chunk, now)

    def _put(self, chunk: bytes, now: float) -> None:
        if not chunk:
            return  # an empty chunk would end the chunked body
        self._sent_at = now
        try:
            is_sent = self._send_chunk(chunk)
        except Exception:  # an error of the server or of a middleware ends only this reader
            self._finish(ReadingOutcome.FAILED)
            return
        if not is_sent:
            self._chunk_bytes = len(chunk)
            self._block(now)

    def _send_chunk(self, chunk: bytes) -> bool:
        if self._wire is not None:
            self._wire.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            return True
        message = {"type": "http.response.body", "body": chunk, "more_body": True}
        assert self._step is not None and self._send is not None
        return self._step.start(self._send(message))  # type: ignore[arg-type]

    def _block(self, now: float) -> None:
        self._blockage = BlockedWrite(now, unacknowledged_bytes(self._transport))
        self._port.note_blocked(self)

    def _paused(self) -> None:
        """Leave the row and block: the connection's buffer is full until `_resumed`."""
        if self.row is not None:
            self.row.remove(self)
        if self._blockage is None and self.outcome is None:
            self._block(self._port.now())

    def _resumed(self) -> None:
        if self.outcome is None:
            self._written(None, None)

    def _written(self, _: Any, error: BaseException | None) -> None:
        self._unblock()
        if error is not None:
            self._finish(ReadingOutcome.FAILED)
        elif self._is_last_chunk:
            self._end(self._port.now())
        else:
            self._port.wake(self)

    def _unblock(self) -> None:
        if self._blockage is not None:
            self._blockage = None
            self._chunk_bytes = 0
            self._port.note_unblocked(self)

    # Limits and heartbeats

    def beat(self, now: float, heartbeat_s: float) -> float | None:
        """Write a heartbeat if nothing was written for `heartbeat_s`.

        Returns:
            When to call again, loop time in s; None: never.
        """
        if self.outcome is not None:
            return None
        sent_at = self._sent_at if self.row is None else max(self._sent_at, self.row.sent_at)
        if now - sent_at < heartbeat_s or self._is_blocked or self._rest:
            return max(sent_at, now - heartbeat_s / 2) + heartbeat_s
        self._put_aside(self._log.dialect.heartbeat, now)
        return now + heartbeat_s

    @property
    def generation_ids(self) -> tuple[str]:
        return (self._relay.meta.generation_id,)

    def is_too_slow(self, now: float, bytes_max: int) -> bool:
        if self._blockage is None:
            return False
        return self._blockage.is_too_slow(
            now,
            unacknowledged_bytes=unacknowledged_bytes(self._transport),
            backlog_bytes=self._backlog_bytes(),
            bytes_max=bytes_max,
        )

    def _backlog_bytes(self) -> int:
        unsent = self._buffer_bytes() + self._chunk_bytes + len(self._rest)
        if self.position.epoch == self._relay.feed.epoch:
            unsent += self._log.backlog_bytes(self.position.seq)
        return unsent

    def _buffer_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # The end

    def break_off(self, outcome: ReadingOutcome) -> None:
        self._finish(outcome)

    def left(self) -> None:
        """End the reading: the client has disconnected."""
        self._finish(ReadingOutcome.LEFT)

    def _end(self, now: float) -> None:
        """Finish, with the bytes that complete a compressed body."""
        closing = b"" if self._body is None else self._body.closing()
        if closing:
            self._is_last_chunk = True
            self._put(closing, now)
            if self._is_blocked:
                return
        self._finish(ReadingOutcome.ENDED)

    def _finish(self, outcome: ReadingOutcome) -> None:
        if self.outcome is None:
            self.outcome = outcome
            if self._wire is not None:
                self._wire.release()
            asyncio.get_running_loop().call_soon(self._call_on_over)
        if self.row is not None:
            self.row.remove(self)
        self._unblock()
        if self._body is not None:
            self._body.close()
        if self._step is not None:
            self._step.close()

    def _call_on_over(self) -> None:
        on_over, self._on_over = self._on_over, None
        assert on_over is not None and self.outcome is not None
        on_over(self.outcome)
