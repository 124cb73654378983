"""Reads lines of a batch's input of which it is known where they stand.

For those in flight at a takeover, those that are asked again, and those of a redrive. Nothing is
ever whole in memory: a piece of the file, and what it is short of a line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from shared.batches.lease import InFlightLine
from shared.errors import NotFound
from shared.files.store import FileRecord, FileStore

GAP_BYTES = 1_048_576  # to the next line that is wanted: beyond it is read anew


async def fetch(
    files: FileStore, record: FileRecord, wanted: Sequence[InFlightLine]
) -> AsyncIterator[tuple[InFlightLine, bytes]]:
    """Yield lines of which it is known where they stand, in the order of the input.

    Raises:
        NotFound: the file is gone.
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
