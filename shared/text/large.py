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
SLICE_CHARACTERS = 262_144  # of one string in one step

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
    return msgspec.json.encode(await _sliced(content))


async def _sliced(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= SLICE_CHARACTERS else await _encoded(value)
    if isinstance(value, dict):
        return {name: await _sliced(member) for name, member in value.items()}
    if isinstance(value, list):
        return [await _sliced(item) for item in value]
    return value


async def _encoded(text: str) -> msgspec.Raw:
    """Encode a string: join the slices without their quotes, between one pair of quotes."""
    pieces = []
    for start in range(0, len(text), SLICE_CHARACTERS):
        pieces.append(msgspec.json.encode(text[start : start + SLICE_CHARACTERS])[1:-1])
        await asyncio.sleep(0)
    return msgspec.Raw(b'"%b"' % b"".join(pieces))
