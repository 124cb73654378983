"""Reads a plain text chunk by what it shares with the one before it.

In a stream of chat completions nearly every chunk is the last one with another text. Where all
bytes before and after the text are those of a chunk that was decoded in full, everything but the
text means what it meant there, and only the text is read. Whatever differs is decoded in full.
Does no I/O; knows of the format only where the text stands.
Source: RFC 8259, 7: a string without quotes, backslashes and control characters is its own bytes.
"""

from __future__ import annotations

import re

_CONTENT = re.compile(rb'"content" ?: ?"')
_NOT_PLAIN = re.compile(rb'[\x00-\x1f"\\]').search
_DATA, _EVENT_END = b"data: ", b"\n\n"


class ChunkTemplate:
    """What surrounds the text in one server's chunks of one answer."""

    __slots__ = ("_event_prefix", "_event_suffix", "_prefix", "_suffix")

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self._prefix, self._suffix = prefix, suffix
        self._event_prefix, self._event_suffix = _DATA + prefix, suffix + _EVENT_END

    def text_of(self, payload: bytes) -> str | None:
        """Return the text of a chunk; None: it has to be decoded."""
        return _between(payload, self._prefix, self._suffix)

    def text_of_event(self, data: bytes) -> str | None:
        """The same of one whole event as it is sent, its line and the blank one."""
        return _between(data, self._event_prefix, self._event_suffix)


def learn(payload: bytes, text: str) -> ChunkTemplate | None:
    """Return the template of a chunk that says `text` and nothing else; None: it is no good."""
    found = _CONTENT.search(payload)
    if found is None or payload.count(b'"content"') != 1:
        return None
    begin = found.end()
    end = payload.find(b'"', begin)
    template = ChunkTemplate(payload[:begin], payload[end:])
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
