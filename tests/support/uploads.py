"""Uploads by hand: the bytes of a form, whole or as a stream, and the files in a directory.

Does not import the system under test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

BOUNDARY = "b0undary"
MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
PIECE = 65_536


def form(data: bytes) -> bytes:
    """The body of an upload of `data`."""
    return HEAD + data + TAIL


async def stream_form(size: int) -> AsyncIterator[bytes]:
    """The same for `size` bytes, never whole in memory."""
    yield HEAD
    for start in range(0, size, PIECE):
        yield b"x" * min(PIECE, size - start)
    yield TAIL


def lying(directory: Path) -> list[str]:
    """The names of all files below a directory, half written ones too."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file())
