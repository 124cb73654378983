"""The requests of the client: what they say, and which answers are answers. Without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from tailrace_client.errors import broken
from tailrace_client.options import Shared
from tailrace_client.reading import Reading
from tailrace_client.wire import ACCEPT, BYTES_TYPE, PARTIAL_STATUS, cursor_headers, foreign


@dataclass(slots=True)
class ReadRequest:
    """Read a generation after a cursor; `path` is that of the generation."""

    generation_id: str
    path: str
    reading: Reading
    cursor: str

    def headers(self, transport: str) -> dict[str, str]:
        """Return the headers of a stream over HTTP."""
        return {"accept": ACCEPT[transport], **cursor_headers(self.cursor)}


def timeouts(shared: Shared, held_s: float = 0.0) -> httpx2.Timeout:
    """Return the limits of a request whose answer the server may hold for `held_s` seconds."""
    return httpx2.Timeout(shared.open_s, read=shared.open_s + held_s)


def parts_of(
    accept: str, headers: Mapping[str, str] | None, body: Any, form: Any, *, content: Any = None
) -> dict[str, Any]:
    """Return the parts of a request, as httpx2 takes them.

    Args:
        form: the parts of a multipart body, as httpx2 takes them.
        content: the bytes of the body, in place of `body`.
    """
    parts = {"json": body, "files": form, "content": content}
    parts["headers"] = {"accept": accept, **(headers or {})}
    return {name: part for name, part in parts.items() if part is not None}


def rest_headers(start: int) -> dict[str, str]:
    """Return the headers of a download from the byte `start` on."""
    headers = {"accept": BYTES_TYPE, "accept-encoding": "identity"}
    return {**headers, "range": f"bytes={start}-"} if start else headers


def check_rest(response: httpx2.Response, start: int) -> None:
    """Check that a download begins at the byte `start`.

    Raises:
        TailraceError: retryable; it begins at the first byte.
    """
    if start and response.status_code != PARTIAL_STATUS:
        raise broken("a proxy answered with the whole file instead of its rest")


def is_answer(response: httpx2.Response, wanted: str) -> bool:
    """Return whether a node has answered with success: in the wanted type, or with 204.

    Raises:
        ForeignAnswer: a success that no node gave.
    """
    if response.status_code == 204:
        return True
    content_type = response.headers.get("content-type", "")
    if response.is_success and wanted not in content_type:
        raise foreign(content_type, wanted)
    return response.is_success
