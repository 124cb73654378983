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
    files: FileStore, record: FileRecord, wanted: Sequence[InFlightLine]
) -> AsyncIterator[tuple[InFlightLine, bytes]]:
    """Yield the lines of `wanted` in the order of the input, each with its bytes.

    Raises:
        NotFound: the file is absent, or ends before a line.
    """
    rest = deque(sorted(wanted, key=lambda one: one.offset))
    while rest:
        left = len(rest)
        at, kept = rest[0].offset, bytearray()
        async with aclosing(files.read(record, at)) as pieces:
            async for piece in pieces:
                kept += piece
                while rest and rest[0].offset + rest[0].length <= at + len(kept):
                    one = rest.popleft()
                    begin = one.offset - at
                    yield one, bytes(kept[begin : begin + one.length]).strip()
                if not rest or rest[0].offset > at + len(kept) + GAP_BYTES:
                    break
                passed = min(rest[0].offset - at, len(kept))
                del kept[:passed]
                at += passed
        if len(rest) == left:
            raise NotFound("file")
