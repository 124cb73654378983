"""Entries and the state of a stream as server-sent events.

    event: data            the bytes of one entry: a text, a JSON array, or base64
    event: control         {"streamNextOffset","streamCursor","upToDate"?} after each data event,
                           or {"streamNextOffset","streamClosed"} at the end of a closed stream

Each line of a text has its own `data:`, so that no text can begin a line of its own. A reader takes
away one space behind `data:`; a line that begins with a space is sent with one more, other lines
with none, because the conformance suite looks for `data:{`. CR and CRLF end a line in this format,
so a reader gets LF instead of them. Pure.
Sources: the Durable Streams protocol, "Read Stream - Live (SSE)"; WHATWG HTML, 9.2.6.
"""

from __future__ import annotations

import base64
import re

from shared.streams.content import JSON_TYPE, is_text, join
from shared.streams.place import Place

_LINE_END = re.compile(rb"\r\n|\r|\n")
DATA = b"event: data\n"


def data_event(media: str, data: bytes) -> bytes:
    """Return the event of one entry."""
    if media == JSON_TYPE:
        data = join(media, [data])
    elif is_text(media):
        data = data.decode("utf-8", "replace").encode()
    else:
        data = base64.b64encode(data)
    return DATA + b"\n".join(map(_field, _LINE_END.split(data))) + b"\n\n"


def control_event(place: Place, cursor: str, *, is_up_to_date: bool, is_closed: bool) -> bytes:
    """Return the event behind an entry.

    Args:
        is_closed: the stream is closed, and `place` is its end.
    """
    if is_closed:
        rest = b',"streamClosed":true'
    else:
        rest = b',"streamCursor":"%b"' % cursor.encode()
        if is_up_to_date:
            rest += b',"upToDate":true'
    return b'event: control\ndata:{"streamNextOffset":"%b"%b}\n\n' % (str(place).encode(), rest)


def _field(line: bytes) -> bytes:
    return b"data: " + line if line.startswith(b" ") else b"data:" + line
