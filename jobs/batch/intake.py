"""Reads a batch's input on from a cursor, line by line.

Nothing is ever whole in memory: a piece of the file, and the lines that it completed. A piece is
taken apart in slices, between which others have their turn: it may be nothing but line ends.
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

SLICE_BYTES = 16_384


def line_bytes_max(settings: Settings) -> int:
    """Return how much of one line is read; a longer one fails the whole input."""
    return max(LINE_BYTES_MAX, settings.body_bytes_max + LINE_FRAME_BYTES)


async def lines_of(
    files: FileStore, record: FileRecord, *, line: int = 0, offset: int = 0, bytes_max: int
) -> AsyncIterator[list[InputLine]]:
    """Yield the lines from a cursor on, as the pieces of the file give them.

    Raises:
        NotFound: the file is gone.
    """
    splitter = LineSplitter(line=line, offset=offset, bytes_max=bytes_max)
    async with aclosing(files.read(record, offset)) as pieces:
        async for piece in pieces:
            for start in range(0, len(piece), SLICE_BYTES):
                yield splitter.feed(piece[start : start + SLICE_BYTES])
                await asyncio.sleep(0)
    yield splitter.close()


class InputReader:
    """Gives the lines from a cursor on, as many as are wanted. To be closed."""

    def __init__(self, lines: AsyncIterator[list[InputLine]]) -> None:
        self.is_exhausted = False
        self._lines = lines
        self._waiting: deque[InputLine] = deque()

    async def take(self, count: int, bytes_max: int) -> list[InputLine]:
        """Return up to `count` lines, and no more after `bytes_max` bytes.

        Raises:
            NotFound: the file is gone.
        """
        found: list[InputLine] = []
        size = 0
        while len(found) < count and size < bytes_max and await self.has_more():
            found.append(self._waiting.popleft())
            size += found[-1].length
        return found

    async def has_more(self) -> bool:
        """Whether there is another line; it stays to be taken.

        Raises:
            NotFound: the file is gone.
        """
        while not self._waiting:
            try:
                self._waiting.extend(await anext(self._lines))
            except StopAsyncIteration:
                self.is_exhausted = True
                return False
        return True
