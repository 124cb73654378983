"""Turns the bytes of tokens into text, and ends the text before a stop sequence. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class AnswerText:
    """The text of one answer.

    Args:
        stops: the answer ends before the first of them.

    Attributes:
        has_stopped: a stop sequence was reached; no text follows.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.has_stopped = False
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, raw: bytes) -> str:
        """Return the text that is certain: whole characters that begin no stop sequence."""
        return self._take(self._decode(raw))

    def finish(self) -> str:
        """Return what is held back, because the answer is over."""
        text = self._take(self._decode(b"", True))
        if self.has_stopped:
            return text
        held, self._held = self._held, ""
        return text + held

    def _take(self, text: str) -> str:
        if self.has_stopped:
            return ""
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.has_stopped = True
            self._held = ""
            return held[: min(found)]
        kept = max((_begun(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((length for length in range(most, 0, -1) if text.endswith(stop[:length])), 0)
