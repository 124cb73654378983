r"""AG-UI over HTTP: the events of a run as server-sent events, or as protocol buffers.

    id: 2 LF
    data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"gen_…-1","delta":" Hello"} LF LF

Invariant: `id` is the number of the event in its run, from 0. A client counts the messages of the
binary form in the same way. So a reader of either form comes back on any node with the number of
the last event that it has seen. A heartbeat of the binary form is an event, too, because that form
has no comments; it is not counted. builder.py has the order of the events.
Source: docs/dialects/ag-ui.md.
"""

from __future__ import annotations

import msgspec

from api.dialects.ag_ui.builder import AgUiEvent, EventBuilder
from api.dialects.ag_ui.protobuf import after_frame, frame
from api.dialects.openai_errors import failure_aside
from api.errors import ErrorBody
from shared.errors import RequestError
from shared.log.event_bytes import plain_text
from shared.log.events import decode_known
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import EventId
from shared.log.records import Meta

PROTO = "application/vnd.ag-ui.event+proto"
HEARTBEAT = frame({"type": "CUSTOM", "name": "heartbeat", "value": None})
_encode = msgspec.json.encode
_PLAIN_BYTES_MAX = 1_000_000  # of an entry; a larger one may not fit into one event


class _AgUiFold(ByteFold):
    def __init__(self, meta: Meta) -> None:
        self._builder = EventBuilder(meta)

    def opening(self) -> bytes:
        return self._framed(self._builder.opening())

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        framed = self._framed(self._builder.add(decode_known(raw)))
        if self._builder.is_over:
            self.over_at = event_id.seq
        return framed

    def _framed(self, events: list[AgUiEvent]) -> bytes:
        raise NotImplementedError


class SseFold(_AgUiFold):
    """The events as server-sent events."""

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        # Nearly every entry: a piece of text for the open message.
        message = self._builder.text_id
        if message and len(raw) <= _PLAIN_BYTES_MAX:
            text = plain_text(raw)
            if text:
                self.given += 1
                return (
                    b'id: %d\ndata: {"type":"TEXT_MESSAGE_CONTENT","messageId":"%b","delta":"%b"}'
                    b"\n\n" % (self.given - 1, message.encode(), text)
                )
        return super().add(event_id, raw)

    def aside(self, raw: bytes) -> bytes:
        failed = self._builder.failed(failure_aside(raw))
        return b"".join(b"data: %b\n\n" % _encode(event) for event in failed)

    def _framed(self, events: list[AgUiEvent]) -> bytes:
        first = self.given
        self.given += len(events)
        return b"".join(
            b"id: %d\ndata: %b\n\n" % (number, _encode(event))
            for number, event in enumerate(events, first)
        )


class ProtoFold(_AgUiFold):
    """The events as protocol buffers."""

    def aside(self, raw: bytes) -> bytes:
        return b"".join(map(frame, self._builder.failed(failure_aside(raw))))

    def _framed(self, events: list[AgUiEvent]) -> bytes:
        self.given += len(events)
        return b"".join(map(frame, events))


AG_UI = Dialect("ag-ui", SseFold, is_numbered=True, is_compressible=True)
AG_UI_PROTO = Dialect(
    "ag-ui-proto",
    ProtoFold,
    heartbeat=HEARTBEAT,
    content_type=PROTO.encode(),
    is_numbered=True,
    is_lines=False,
    after_frame=after_frame,
)


def ag_ui_shape(error: RequestError) -> ErrorBody:
    """Return an error as the event RUN_ERROR: the client puts the body into its message."""
    shown = {"type": "RUN_ERROR", "message": error.message, "code": error.code}
    return ErrorBody(_encode(shown))
