"""One connection's request to read, for every transport."""

from __future__ import annotations

from dataclasses import dataclass

import httpx2

from tailrace_client.options import Shared
from tailrace_client.reading import Reading


@dataclass(slots=True)
class ReadRequest:
    """Read a generation after a cursor; `path` is that of the generation."""

    generation_id: str
    path: str
    reading: Reading
    cursor: str


def timeouts(shared: Shared, held_s: float = 0.0) -> httpx2.Timeout:
    """Return the limits of a request whose answer the server may hold for `held_s` seconds."""
    return httpx2.Timeout(shared.open_s, read=shared.open_s + held_s)
