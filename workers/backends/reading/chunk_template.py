"""Reads the text of a chunk without decoding its JSON, by comparing the bytes around the text.

In a chat completions stream nearly all chunks differ only in their text. If the bytes before and
after the text are equal to those of a chunk that was decoded in full, everything else has the same
meaning too, so only the text is read. Any other chunk must be decoded in full.
Does no I/O; knows only where the text is.
Source: RFC 8259, 7: a string without quotes, backslashes and control characters is its own bytes.
"""

from __future__ import annotations

import re

_NOT_PLAIN = re.compile(rb'[\x00-\x1f"\\]').search
_DATA, _EVENT_END = b"data: ", b"\n\n"


class ChunkTemplate:
    """The bytes around the text in the chunks of one answer.

    Args:
        lead: the bytes of an event before its chunk.
    """

    __slots__ = ("_event_prefix", "_event_suffix", "_prefix", "_suffix")

    def __init__(self, prefix: bytes, suffix: bytes, lead: bytes = _DATA) -> None:
        self._prefix, self._suffix = prefix, suffix
        self._event_prefix, self._event_suffix = lead + prefix, suffix + _EVENT_END

    def text_of(self, payload: bytes) -> str | None:
        """Return the text of a chunk; None: the chunk must be decoded."""
        return _between(payload, self._prefix, self._suffix)

    def text_of_event(self, data: bytes) -> str | None:
        """Return the text of a chunk sent as one event and a blank line; None: as above."""
        return _between(data, self._event_prefix, self._event_suffix)


def learn(
    payload: bytes, text: str, member: bytes = b"content", lead: bytes = _DATA
) -> ChunkTemplate | None:
    """Return the template of a chunk that holds only `text`; None: no template can be made.

    Args:
        member: that holds the text.
        lead: the bytes of an event before its chunk.
    """
    name = b'"%b"' % member
    found = re.search(name + rb' ?: ?"', payload)
    if found is None or payload.count(name) != 1:
        return None
    begin = found.end()
    end = payload.find(b'"', begin)
    template = ChunkTemplate(payload[:begin], payload[end:], lead)
    return template if template.text_of(payload) == text else None


def _between(data: bytes, prefix: bytes, suffix: bytes) -> str | None:
    begin, end = len(prefix), len(data) - len(suffix)
    if begin >= end or not data.startswith(prefix) or not data.endswith(suffix):
        return None
    text = data[begin:end]
    if _NOT_PLAIN(text):
        return None
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None
