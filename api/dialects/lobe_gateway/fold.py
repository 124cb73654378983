r"""LobeHub's stream events as server-sent events, and as frames of its gateway's WebSocket.

    id: 3 LF  event: stream_chunk LF  data: {"type":"stream_chunk",…} LF LF
    {"type":"agent_event","id":"3","event":{"type":"stream_chunk",…}}

Invariant: `id` is the number of the event in its operation, from 1, in both forms. The client
compares ids as numbers, so they must be plain decimal numbers.
Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from api.dialects.failure import STREAM_RESET
from api.dialects.lobe_gateway.events import encode
from api.dialects.lobe_gateway.messages import SESSION_COMPLETE, Message
from api.dialects.lobe_gateway.operation_log import numbered, open_log
from api.dialects.openai_errors import failure_aside
from shared.log.events import Failure
from shared.log.fold import ByteFold, Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta

EXPIRED = Failure("expired", "the log of this operation has expired before its end was read", False)


class SseFold(ByteFold):
    """The events as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._log = open_log(meta)

    def opening(self) -> bytes:
        return self._framed(self._log.opening())

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return self._framed(self._log.add(raw)[0])

    def aside(self, raw: bytes) -> bytes:
        failed = self._log.failed(failure_aside(raw))
        return b"".join(b"event: %b\ndata: %b\n\n" % (m.kind.encode(), m.body) for m in failed)

    def _framed(self, messages: list[Message]) -> bytes:
        first = self.given + 1
        self.given += len(messages)
        return b"".join(
            b"id: %d\nevent: %b\ndata: %b\n\n" % (number, message.kind.encode(), message.body)
            for number, message in enumerate(messages, first)
        )


LOBE_GATEWAY = Dialect("lobe-gateway", SseFold, is_numbered=True)


class GatewayFrameFold(FrameFold):
    """The events as frames of one reading.

    Args:
        operation: the client's name for the generation.
        seen: the number of the last event that the client has; 0: none.
        wants_status: the client sent `wantStatus`, so it gets `resume_complete` when it has caught
            up.
    """

    def __init__(self, meta: Meta, operation: str, seen: int, *, wants_status: bool) -> None:
        self._log = open_log(meta, operation)
        self._seen = seen
        self._owes_status = wants_status
        self._number = 0
        self._opened: list[bytes] = self._framed(self._log.opening())

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        messages, is_end = self._log.add(raw)
        frames = self._take_opened()
        if any(message.kind == SESSION_COMPLETE for message in messages):
            frames += self._take_status("completed")
        frames += self._framed(messages)
        if is_end and self._seen > self._number:
            return self._beyond()
        if is_end:
            frames += self._take_status(self._log.status)
        return [*frames, *self._completed()] if is_end else frames

    def caught_up(self) -> Sequence[bytes]:
        frames = self._take_opened()
        if self._seen > self._number:
            return [] if self.is_over else self._beyond()
        return [*frames, *self._take_status(self._log.status)]

    def aside(self, raw: bytes) -> Sequence[bytes]:
        return self._failed(failure_aside(raw))

    def expired(self) -> Sequence[bytes]:
        return self._failed(EXPIRED)

    # Version 2 has other members in these.

    def _frame(self, message: Message, number: int) -> bytes:
        return numbered(message, number)

    def _completed(self) -> list[bytes]:
        return [] if self._log.has_said_complete else [b'{"type":"session_complete"}']

    def _given_up(self) -> bytes:
        return b'{"type":"session_complete"}'

    def _resumed(self, status: str) -> bytes:
        return encode({"type": "resume_complete", "status": status})

    def _beyond(self) -> list[bytes]:
        """End a reading whose client has seen more than there is: Redis lost events."""
        self.is_over = True
        return self._failed(STREAM_RESET)

    def _failed(self, failure: Failure) -> list[bytes]:
        frames = [self._frame(message, 0) for message in self._log.failed(failure)]
        return [*frames, self._given_up()]

    def _take_status(self, status: str) -> list[bytes]:
        """Return `resume_complete` if the client waits for it; nothing may close before it."""
        if not self._owes_status or self._number < self._seen - 1:
            return []
        self._owes_status = False
        return [self._resumed(status)]

    def _take_opened(self) -> list[bytes]:
        opened, self._opened = self._opened, []
        return opened

    def _framed(self, messages: list[Message]) -> list[bytes]:
        """Return the frames of the messages that the client has not seen."""
        frames = []
        for message in messages:
            self._number += 1
            if self._number > self._seen and self._is_for_client(message):
                frames.append(self._frame(message, self._number))
        return frames

    def _is_for_client(self, message: Message) -> bool:
        return True
