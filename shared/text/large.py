"""Runs work on large bodies and long answers in steps, so that other requests are not delayed.

A body of a megabyte needs a few milliseconds each for decoding, checking and encoding. Each of
these is one step, which blocks the event loop. Invariant: the loop runs once between any two steps
of any requests. So fifty large bodies delay a small one by one step, not by fifty. Threads would
not help: a thread holds the interpreter just as long, and the loop would have to wait for it again
and again. This module does not know what the work is.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

LARGE_BYTES = 65_536  # smaller work runs without a turn: it takes about 1 ms
FOLD_BYTES_MAX = 1_048_576  # of a log in one step: up to 10 ms
SLICE_CHARACTERS = 262_144  # of strings in one step
JOINED_BYTES = 2_097_152  # copied in one step
LONG_CHARACTERS = 1_024  # a string of this length or more is encoded by itself

T = TypeVar("T")


class LargeWork:
    """Gives the steps of one process their turns."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # fair: in the order of arrival

    async def step(self, size: int, work: Callable[[], T]) -> T:
        """Call `work`, whose time is proportional to `size` bytes, and return its result.

        An error of `work` is raised after the same pause. A cancellation leaves no state behind.
        """
        if size < LARGE_BYTES:
            return work()
        async with self._turn:
            try:
                return work()
            finally:
                await asyncio.sleep(0)


async def encode_json(content: Any) -> bytes:
    """Return `content` as JSON. Encodes long strings, such as a whole answer, in slices."""
    texts = LongTexts()
    return b"".join(texts.parts(msgspec.json.encode(await texts.taken(content))))


async def joined(parts: Iterable[bytes]) -> bytearray:
    """Return the parts as one, copied in steps.

    A result of 32 MiB at once takes 20 to 80 ms, most of it for new pages of memory.
    """
    whole, since_pause = bytearray(), 0
    for part in parts:
        whole += part
        since_pause += len(part)
        if since_pause >= JOINED_BYTES:
            since_pause = 0
            await asyncio.sleep(0)
    return whole


class LongTexts:
    """The long strings of some content, encoded in slices and taken out of the content.

    The content has a mark in the place of each. `parts` puts them back into the JSON of the
    content. So a string is encoded and stored once, however often its content is encoded.
    """

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(16)
        self._mark = re.compile(self._nonce.encode() + rb":(\d+);")
        self._texts: list[list[bytes]] = []  # JSON without the quotes
        self._since_pause = 0  # characters

    async def taken(self, value: Any) -> Any:
        """Return `value` with marks. The event loop runs after each `SLICE_CHARACTERS`."""
        if isinstance(value, str):
            return value if len(value) < LONG_CHARACTERS else await self._take(value)
        if isinstance(value, dict):
            return {name: await self.taken(member) for name, member in value.items()}
        if isinstance(value, list):
            return [await self.taken(item) for item in value]
        return value

    def parts(self, raw: bytes) -> list[bytes]:
        """Return JSON with marks, cut at the marks, with the strings between the pieces."""
        found = self._mark.split(raw)
        parts = [found[0]]
        for number, behind in zip(found[1::2], found[2::2], strict=True):
            parts += [*self._texts[int(number)], behind]
        return parts

    async def _take(self, text: str) -> str:
        pieces = []
        for start in range(0, len(text), SLICE_CHARACTERS):
            piece = text[start : start + SLICE_CHARACTERS]
            pieces.append(msgspec.json.encode(piece)[1:-1])
            self._since_pause += len(piece)
            if self._since_pause >= SLICE_CHARACTERS:
                self._since_pause = 0
                await asyncio.sleep(0)
        self._texts.append(pieces)
        return f"{self._nonce}:{len(self._texts) - 1};"
