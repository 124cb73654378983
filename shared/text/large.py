"""Runs work on large bodies and long answers in steps, so that other requests are not delayed.

A body of a megabyte needs a few milliseconds each for decoding, checking and encoding. Each of
these is one step, which blocks the event loop. Invariant: the loop runs once between any two steps
of any requests. So fifty large bodies delay a small one by one step, not by fifty. Threads would
not help: a thread holds the interpreter just as long, and the loop would have to wait for it again
and again. This module does not know what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

LARGE_BYTES = 65_536  # smaller work runs without a turn: it takes about 1 ms
FOLD_BYTES_MAX = 1_048_576  # of a log in one step: up to 10 ms
SLICE_CHARACTERS = 262_144  # of strings in one step
LONG_CHARACTERS = 4_096  # a string of this length or more is encoded by itself

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
    return msgspec.json.encode(await sliced(content))


async def sliced(content: Any) -> Any:
    """Return `content` with its long strings encoded, each as `msgspec.Raw`.

    To encode the result gives the same bytes as to encode `content`, and only copies the strings.
    The event loop runs after each `SLICE_CHARACTERS`.
    """
    return await _Slicer().encode(content)


class _Slicer:
    def __init__(self) -> None:
        self._since_pause = 0  # characters

    async def encode(self, value: Any) -> Any:
        if isinstance(value, str):
            return value if len(value) < LONG_CHARACTERS else await self._encode_text(value)
        if isinstance(value, dict):
            return {name: await self.encode(member) for name, member in value.items()}
        if isinstance(value, list):
            return [await self.encode(item) for item in value]
        return value

    async def _encode_text(self, text: str) -> msgspec.Raw:
        """Encode a string: join the slices without their quotes, between one pair of quotes."""
        pieces = []
        for start in range(0, len(text), SLICE_CHARACTERS):
            piece = text[start : start + SLICE_CHARACTERS]
            pieces.append(msgspec.json.encode(piece)[1:-1])
            self._since_pause += len(piece)
            if self._since_pause >= SLICE_CHARACTERS:
                self._since_pause = 0
                await asyncio.sleep(0)
        return msgspec.Raw(b'"%b"' % b"".join(pieces))
