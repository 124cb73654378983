"""A batch as both clients send and read it: the input's lines, the form, the results. No I/O.

Source: docs/batches.md, the server's own rules for the input and the output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tailrace_client.errors import ForeignAnswer, usage

ENDPOINT = "/v1/generations"
WINDOW = "24h"
LINES_MAX = 50_000
OK_STATUS = 200
NO_REST_STATUS = 416  # the file ends where the download broke off
Requests = Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One line of a batch that is done.

    Attributes:
        custom_id: the name of the line; its number, from "0" on, if the requests had no names.
        status_code: of the answer; None: no backend was asked.
        body: the answer that the endpoint itself would have given.
        error: why the line failed: `code` and `message`; else None.
    """

    custom_id: str
    status_code: int | None
    body: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    @property
    def is_success(self) -> bool:
        return self.error is None and self.status_code == OK_STATUS


def input_of(requests: Requests, endpoint: str) -> bytes:
    """Return the input file of a batch, JSON Lines.

    Args:
        requests: request bodies of the endpoint; a mapping also names each line.

    Raises:
        TailraceError: `usage`, there are no requests, or more than a batch may have.
    """
    if isinstance(requests, Mapping):
        named: Iterable[tuple[str, Mapping[str, Any]]] = requests.items()
    else:
        named = ((str(number), body) for number, body in enumerate(requests))
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": endpoint, "body": body})
        for name, body in named
    ]
    if not 1 <= len(lines) <= LINES_MAX:
        raise usage(f"a batch has 1 to {LINES_MAX:,} requests, got {len(lines):,}")
    return ("\n".join(lines) + "\n").encode()


def form_of(data: bytes) -> dict[str, Any]:
    """Return the multipart form of an upload."""
    return {
        "purpose": (None, "batch"),
        "file": ("requests.jsonl", data, "application/jsonl"),
    }


def batch_path(batch_id: str) -> str:
    return f"/v1/batches/{quote(batch_id, safe='')}"


def content_path(file_id: str) -> str:
    return f"/v1/files/{quote(file_id, safe='')}/content"


def read_line(raw: bytes) -> BatchLine:
    """Return one line of an output or error file.

    Raises:
        TailraceError: `connection`; no node wrote this line.
    """
    try:
        members = json.loads(raw)
        response = members["response"] or {}
        return BatchLine(
            custom_id=members["custom_id"],
            status_code=response.get("status_code"),
            body=response.get("body"),
            error=members["error"],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ForeignAnswer("a line of the results is malformed", retryable=False) from None


class ResultLines:
    """Turns the bytes of a results file into lines. A download that broke off continues at `count`.

    Attributes:
        count: the bytes that were taken so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._rest = b""

    def feed(self, data: bytes) -> list[BatchLine]:
        self.count += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [read_line(line) for line in lines if line]
