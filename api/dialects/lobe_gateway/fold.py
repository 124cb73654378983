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
from api.dialects.lobe_gateway.events import (
    STATUSES,
    StreamEvent,
    StreamEvents,
    encode,
    status_of,
)
from api.dialects.openai_errors import failure_aside
from shared.log.events import End, Failure, decode_known
from shared.log.fold import ByteFold, Dialect, FrameFold
from shared.log.ids import EventId
from shared.log.records import Meta

EXPIRED = Failure("expired", "the log of this operation has expired before its end was read", False)


class SseFold(ByteFold):
    """The events as server-sent events."""

    def __init__(self, meta: Meta) -> None:
        self._events = StreamEvents(meta)

    def opening(self) -> bytes:
        return self._framed(self._events.opening())

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        return self._framed(self._events.add(decode_known(raw)))

    def aside(self, raw: bytes) -> bytes:
        failed = self._events.failed(failure_aside(raw))
        return b"".join(b"event: %b\ndata: %b\n\n" % _named(event) for event in failed)

    def _framed(self, events: list[StreamEvent]) -> bytes:
        first = self.given + 1
        self.given += len(events)
        return b"".join(
            b"id: %d\nevent: %b\ndata: %b\n\n" % (number, *_named(event))
            for number, event in enumerate(events, first)
        )


def _named(event: StreamEvent) -> tuple[bytes, bytes]:
    return event["type"].encode(), encode(event)


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
        self._events = StreamEvents(meta, operation)
        self._seen = seen
        self._owes_status = wants_status
        self._status = status_of(meta)
        self._number = 0
        self._opened: list[bytes] = self._framed(self._events.opening())

    def add(self, event_id: EventId, raw: bytes) -> Sequence[bytes]:
        event = decode_known(raw)
        frames = [*self._take_opened(), *self._framed(self._events.add(event))]
        if isinstance(event, End) and self._seen > self._number:
            return self._beyond()
        if isinstance(event, End):
            self._status = STATUSES[event.status]
            frames.append(b'{"type":"session_complete"}')
        return frames

    def caught_up(self) -> Sequence[bytes]:
        frames = self._take_opened()
        if self._seen > self._number:
            return [] if self.is_over else self._beyond()
        if self._owes_status:
            self._owes_status = False
            frames.append(encode({"type": "resume_complete", "status": self._status}))
        return frames

    def aside(self, raw: bytes) -> Sequence[bytes]:
        return self._failed(failure_aside(raw))

    def expired(self) -> Sequence[bytes]:
        return self._failed(EXPIRED)

    def _beyond(self) -> list[bytes]:
        """End a reading whose client has seen more than there is: Redis lost events."""
        self.is_over = True
        return self._failed(STREAM_RESET)

    def _failed(self, failure: Failure) -> list[bytes]:
        events = self._events.failed(failure)
        frames = [encode({"type": "agent_event", "event": event}) for event in events]
        return [*frames, b'{"type":"session_complete"}']

    def _take_opened(self) -> list[bytes]:
        opened, self._opened = self._opened, []
        return opened

    def _framed(self, events: list[StreamEvent]) -> list[bytes]:
        """Return the frames of the events that the client has not seen."""
        frames = []
        for event in events:
            self._number += 1
            if self._number > self._seen:
                told = {"type": "agent_event", "id": str(self._number), "event": event}
                frames.append(encode(told))
        return frames
