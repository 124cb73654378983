"""Reads the parts of an output: several at once, but in their order.

A slow batch has thousands of small parts, and a bucket answers each read after tens of
milliseconds. One read after the other would take minutes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from shared.errors import FilesUnavailable
from shared.files.store import FileStore

AHEAD = 16  # objects that are read at once
PIECES = 1  # waiting pieces of each, of about `shared.files.objects.READ_BYTES`

Pieces = asyncio.Queue[bytes | FileNotFoundError | FilesUnavailable | None]


async def read_in_order(
    files: FileStore, names: Sequence[str], tasks: asyncio.TaskGroup
) -> AsyncIterator[bytes]:
    """Yield the bytes of the objects, in the order of `names`.

    Memory holds at most two pieces of each of `AHEAD` objects, however large they are.

    Args:
        tasks: owns the reads. If the caller stops early, it must cancel them by an exception.

    Raises:
        FileNotFoundError: an object is absent. The bytes of earlier objects have been yielded.
        FilesUnavailable: the file store did not answer, or refused.
    """
    open_reads: deque[Pieces] = deque()
    waiting = iter(names)
    while True:
        while len(open_reads) < AHEAD and (name := next(waiting, None)) is not None:
            open_reads.append(Pieces(PIECES))
            tasks.create_task(_read(files, name, open_reads[-1]))
        if not open_reads:
            return
        while (piece := await open_reads[0].get()) is not None:
            if not isinstance(piece, bytes):
                raise piece
            yield piece
        open_reads.popleft()


async def _read(files: FileStore, name: str, pieces: Pieces) -> None:
    try:
        async for piece in files.read_object(name):
            await pieces.put(piece)
    except (FileNotFoundError, FilesUnavailable) as exc:  # raised in its turn
        await pieces.put(exc)
        return
    await pieces.put(None)
