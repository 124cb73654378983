"""Reads single lines of a batch's input whose offsets are known.

These are the lines in flight at a takeover, lines to repeat, and lines of a redrive. Invariant: the
file is never in memory as a whole, only one piece of it and the beginning of a line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from shared.batches.lease import InFlightLine
from shared.errors import NotFound
from shared.files.store import FileRecord, FileStore

GAP_BYTES = 1_048_576  # greater gaps before the next line are skipped by a new read


async def fetch(
    files: FileStore, record: FileRecord, lines: Sequence[InFlightLine]
) -> AsyncIterator[tuple[InFlightLine, bytes]]:
    """Yield `lines` in the order of the input, each with its bytes.

    Raises:
        NotFound: the file is absent, or ends before a line.
    """
    pending = deque(sorted(lines, key=lambda line: line.offset))
    while pending:
        left = len(pending)
        at, buffered = pending[0].offset, bytearray()
        async with aclosing(files.read(record, at)) as pieces:
            async for piece in pieces:
                buffered += piece
                while pending and pending[0].offset + pending[0].length <= at + len(buffered):
                    line = pending.popleft()
                    start = line.offset - at
                    yield line, bytes(buffered[start : start + line.length]).strip()
                if not pending or pending[0].offset > at + len(buffered) + GAP_BYTES:
                    break
                passed = min(pending[0].offset - at, len(buffered))
                del buffered[:passed]
                at += passed
        if len(pending) == left:
            raise NotFound("file")
