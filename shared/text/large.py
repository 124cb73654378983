"""Work on large bodies and long answers: in steps, with a pause of the loop after each.

Reading a megabyte is a few milliseconds of decoding, of checking and of encoding again. Each of
these is one step, during which nobody else is served. Invariant: between two steps, of whatever
requests, the loop goes round once, so that fifty large bodies at once delay a small one by one step
and not by all of them. No threads: a thread would hold the interpreter just as long, and the loop
would have to wait for the interpreter again and again meanwhile. Knows nothing of bodies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

LARGE_BYTES = 65_536  # less is read at once: it takes about a millisecond
FOLD_BYTES_MAX = 1_048_576  # of a log, folded in one step: up to 10 ms
SLICE_CHARACTERS = 262_144  # of one string, encoded in one step

T = TypeVar("T")


class LargeWork:
    """The turnstile of one node."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()  # first come, first served

    async def step(self, size: int, work: Callable[[], T]) -> T:
        """Do `work`, which takes time in proportion to `size` bytes, and return what it returns.

        What `work` raises is raised, after the same pause. A cancellation leaves nothing.
        """
        if size < LARGE_BYTES:
            return work()
        async with self._turn:
            try:
                return work()
            finally:
                await asyncio.sleep(0)


async def encode_json(content: Any) -> bytes:
    """Return `content` as JSON; its long strings, such as a whole answer, are encoded in slices."""
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
    """Return a string as JSON: the slices' insides, in a row, between one pair of quotes."""
    pieces = []
    for start in range(0, len(text), SLICE_CHARACTERS):
        pieces.append(msgspec.json.encode(text[start : start + SLICE_CHARACTERS])[1:-1])
        await asyncio.sleep(0)
    return msgspec.Raw(b'"%b"' % b"".join(pieces))
