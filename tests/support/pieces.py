"""Bytes in pieces: made, read whole, and looked for in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def whole(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def mode_of(path: Path) -> int | None:
    """Return who may do what with it; None: there is nothing."""
    return path.stat().st_mode & 0o777 if path.exists() else None
