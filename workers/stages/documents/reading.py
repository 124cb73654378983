"""Runs the program that reads one file, and bounds its time, its memory and its output.

Invariant: the process is gone when the reading ends, however it ends. The event loop never waits
for a parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from shared.errors import BackendError

PROGRAM = Path(__file__).with_name("program.py")
LINE_BYTES_MAX = 67_108_864  # of its output: the text of one page, escaped

_SENTENCES = {
    "encrypted": "it is encrypted: send it without a password",
    "broken": "it cannot be read",
    "large": "it is larger than this server reads",
    "pages": "it has more pages than this server reads",
    "long": "it has more text than this server reads",
    "memory": "reading it takes more memory than this server allows",
    "ocr": "its pictures cannot be read",
}
_TOO_LARGE = ("large", "pages", "long", "memory")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one file.

    Attributes:
        file_bytes_max: bytes.
        read_s: of the whole reading, s.
        text_max: characters.
        ocr: languages of tesseract; empty: pictures are not read.
    """

    pages_max: int = 500
    file_bytes_max: int = 52_428_800
    text_max: int = 1_000_000
    read_s: float = 120.0
    memory_mb: int = 1_024
    ocr: str = ""


ENVIRONMENT = ("PATH", "TESSDATA_PREFIX")  # all that the program gets of the worker's environment


@dataclass(frozen=True, slots=True)
class Page:
    """One page that was read; `total`: pages of the file."""

    total: int
    text: str


async def read_file(
    name: str, kind: str, data: str | bytes, bounds: Bounds
) -> AsyncGenerator[Page, None]:
    """Yield the pages of a file.

    Args:
        name: for messages.
        data: bytes, or base64 as a text.

    Raises:
        BackendError: `document_invalid` or `document_too_large`, and not retryable.
    """
    options = {
        "kind": kind, "is_base64": isinstance(data, str), "pages_max": bounds.pages_max,
        "file_bytes_max": bounds.file_bytes_max, "text_max": bounds.text_max,
        "read_s": bounds.read_s, "memory_mb": bounds.memory_mb, "ocr": bounds.ocr,
    }  # fmt: skip
    total = pages = 0
    try:
        async with asyncio.timeout(bounds.read_s), _program(options, data) as process:
            assert process.stdout is not None
            async for line in _lines(process.stdout):
                if "error" in line:
                    raise unreadable(name, line["error"], line.get("detail", ""))
                if "total" in line:
                    total = line["total"]
                else:
                    pages += 1
                    yield Page(total, line["text"])
            await process.wait()
    except TimeoutError:
        message = f"{name}: reading it takes longer than {bounds.read_s:g} s"
        raise BackendError("document_too_large", message, retryable=False) from None
    if not pages or pages < total:
        raise unreadable(name, "broken", "its reader has crashed")


def unreadable(name: str, word: str, detail: str = "") -> BackendError:
    """Return the error of a file that cannot be read."""
    code = "document_too_large" if word in _TOO_LARGE else "document_invalid"
    rest = f" ({detail})" if detail else ""
    return BackendError(code, f"{name}: {_SENTENCES[word]}{rest}", retryable=False)


async def _lines(stdout: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    while raw := await stdout.readline():
        try:
            yield msgspec.json.decode(raw)
        except msgspec.DecodeError:
            return  # the process was killed in the middle of a line


@asynccontextmanager
async def _program(options: dict[str, Any], data: str | bytes) -> AsyncIterator[Process]:
    # The file is opened here and not in the thread: a cancel cannot leave it open.
    with _unnamed_file() as file:
        await asyncio.to_thread(_write, file, data)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(PROGRAM), msgspec.json.encode(options).decode(),
            stdin=file, stdout=PIPE, stderr=DEVNULL, limit=LINE_BYTES_MAX,
            env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        # The whole group: tesseract is a child of the program.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _unnamed_file() -> IO[bytes]:
    """Return an open, empty file: in memory on Linux, elsewhere on disk without a name."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("document"), "w+b")
    return tempfile.TemporaryFile()


def _write(file: IO[bytes], data: str | bytes) -> None:
    """Write the data; the file's position is its start."""
    file.write(data if isinstance(data, bytes) else data.encode())
    file.seek(0)
