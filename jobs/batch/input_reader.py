"""Reads a batch's input from a cursor on, line by line.

Invariant: the file is never in memory as a whole, only one piece and its lines. A piece is split in
slices, and the event loop runs between two slices, because a piece may consist of line ends only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing

from jobs.batch.check import LINE_BYTES_MAX, LINE_FRAME_BYTES
from jobs.batch.splitter import InputLine, LineSplitter
from shared.config.settings import Settings
from shared.files.store import FileRecord, FileStore

SLICE_BYTES = 16_384  # of a piece, split at once


def line_bytes_max(settings: Settings) -> int:
    """Return the greatest length of a line; a longer line fails the whole input."""
    return max(LINE_BYTES_MAX, settings.body_bytes_max + LINE_FRAME_BYTES)


async def lines_of(
    files: FileStore, record: FileRecord, *, line: int = 0, offset: int = 0, bytes_max: int
) -> AsyncIterator[list[InputLine]]:
    """Yield the lines from a cursor on, in lists that may be empty.

    Raises:
        NotFound: the file is absent.
    """
    splitter = LineSplitter(line=line, offset=offset, bytes_max=bytes_max)
    async with aclosing(files.read(record, offset)) as pieces:
        async for piece in pieces:
            for start in range(0, len(piece), SLICE_BYTES):
                yield splitter.feed(piece[start : start + SLICE_BYTES])
                await asyncio.sleep(0)
    yield splitter.close()


class InputReader:
    """Takes given numbers of lines from `lines_of`. The caller closes that iterator."""

    def __init__(self, lines: AsyncIterator[list[InputLine]]) -> None:
        self.is_exhausted = False
        self._lines = lines
        self._waiting: deque[InputLine] = deque()

    async def take(self, count: int, bytes_max: int) -> list[InputLine]:
        """Return up to `count` lines; fewer once they have `bytes_max` bytes together.

        Raises:
            NotFound: the file is absent.
        """
        found: list[InputLine] = []
        size = 0
        while len(found) < count and size < bytes_max and await self.has_more():
            found.append(self._waiting.popleft())
            size += found[-1].length
        return found

    async def has_more(self) -> bool:
        """Whether `take` would return another line.

        Raises:
            NotFound: the file is absent.
        """
        while not self._waiting:
            try:
                self._waiting.extend(await anext(self._lines))
            except StopAsyncIteration:
                self.is_exhausted = True
                return False
        return True
