r"""A generation as a stream of JSON: each event of the log is one value, in the native form.

    1-42  {"type":"token","text":" Hello"}
    event: data LF data:[{"id":"1-42","type":"token","text":" Hello"}] LF LF
    event: control LF data:{"streamNextOffset":"0000000000000001_0000000000000042", …} LF LF

The offset is the event id, each number with 16 digits. So it names one event, and after a loss no
other one. The last control event has `streamClosed`. There is no `upToDate` in an event stream,
because all readers share its bytes, and the cursor is that of the creation for the same reason. A
`reset` outside of the log cannot be expressed: the reader is cut, and finds out by its offset.
"""

from __future__ import annotations

from api.dialects.durable_streams.cursor import next_cursor
from api.dialects.durable_streams.event_stream import control_event, data_event
from api.dialects.native.fold import as_one_line
from shared.log.event_bytes import END_PREFIX
from shared.log.fold import ByteFold, Dialect
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.streams.content import JSON_TYPE
from shared.streams.place import Place


def place_of(event_id: EventId) -> Place:
    """Return the offset of an event."""
    return Place(*event_id)


def event_id_of(place: Place) -> EventId:
    """Return the event that an offset names; of offset zero `START`."""
    return EventId(*place)


def value_of(event_id: EventId, raw: bytes) -> bytes:
    """Return an event as a value of the stream."""
    return b'{"id":"%d-%d",%b' % (*event_id, as_one_line(raw)[1:])


class DurableStreamFold(ByteFold):
    """One generation as an event stream of Durable Streams."""

    def __init__(self, meta: Meta) -> None:
        self._cursor = next_cursor("", meta.created_at_ms / 1000)

    def opening(self) -> bytes:
        return self.control(START, is_closed=False)

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        is_end = raw.startswith(END_PREFIX)
        return data_event(JSON_TYPE, value_of(event_id, raw)) + self.control(
            event_id, is_closed=is_end
        )

    def control(self, event_id: EventId, *, is_closed: bool) -> bytes:
        """Return the control event behind an event."""
        return control_event(
            place_of(event_id), self._cursor, is_up_to_date=False, is_closed=is_closed
        )


EVENT_STREAM = Dialect("durable_streams", DurableStreamFold, heartbeat=b": ping\n\n")
