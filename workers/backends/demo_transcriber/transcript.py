"""The text of the stand-in transcriber. It recognises nothing; the same audio gives the same text.

Each quarter of a second of raw samples is a window. A window that is loud enough becomes a word,
chosen by the bytes of the window; the first quiet window after a word ends the sentence. Other
encodings have windows of `OPAQUE_BYTES`, and each becomes a word. Pure.
"""

from __future__ import annotations

import array
import sys
import zlib
from collections.abc import Iterator

from shared.audio.media import AudioFormat

WINDOW_S = 0.25
OPAQUE_BYTES = 4_096
LOUD = 500  # the highest sample of a window with a word, of 32,767
WORDS = (
    "alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "x-ray", "yankee", "zulu", "zoë", "水", "🌊",
)  # fmt: skip


class Transcript:
    """The pieces of the text while audio arrives.

    Attributes:
        windows: the number of windows so far.
    """

    def __init__(self, form: AudioFormat) -> None:
        self.windows = 0
        self._is_pcm = form.is_pcm
        self._window_bytes = OPAQUE_BYTES
        if form.is_pcm:
            frame = form.channels * 2
            self._window_bytes = max(1, round(form.rate_hz * WINDOW_S)) * frame
        self._waiting = bytearray()
        self._has_text = False
        self._in_sentence = False

    def feed(self, audio: bytes) -> Iterator[str]:
        """Yield the pieces of the windows that these bytes complete."""
        self._waiting += audio
        while len(self._waiting) >= self._window_bytes:
            window = bytes(self._waiting[: self._window_bytes])
            del self._waiting[: self._window_bytes]
            yield from self._piece(window)

    def finish(self) -> Iterator[str]:
        """Yield the pieces of the rest, after the last byte."""
        if self._waiting:
            yield from self._piece(bytes(self._waiting))
        if self._in_sentence:
            yield "."

    def _piece(self, window: bytes) -> Iterator[str]:
        self.windows += 1
        if self._is_pcm and _peak(window) < LOUD:
            if self._in_sentence:
                self._in_sentence = False
                yield "."
            return
        word = WORDS[zlib.crc32(window) % len(WORDS)]
        yield f" {word}" if self._has_text else word
        self._has_text = self._in_sentence = True


def transcript_of(form: AudioFormat, audio: bytes) -> str:
    """Return the whole text of an audio input."""
    transcript = Transcript(form)
    return "".join([*transcript.feed(audio), *transcript.finish()])


def _peak(window: bytes) -> int:
    samples = array.array("h", window[: len(window) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return max(max(samples), -min(samples)) if samples else 0
