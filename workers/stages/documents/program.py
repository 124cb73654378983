"""The program that reads one file, in a process of its own: python program.py '{"kind": …}'.

A file of a stranger may make a parser run for ever, take all memory or crash. So the parser has a
process with limits, without the environment of the worker, and the worker can kill it. Standard
input is the file: its bytes, or base64. Each line of the output is JSON, in this order:

    {"total": 3}
    {"text": "…"}          of each page
    {"error": "encrypted", "detail": "…"}    instead of the rest

This module imports nothing of this project, so that it starts fast.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

JPEG_FILTERS = ("/DCTDecode", "/JPXDecode")  # whole files inside a PDF
FAX_FILTER = "/CCITTFaxDecode"  # what scanners make in black and white: pypdf gives a TIFF file
PICTURES_OF_PAGE_MAX = 8
PICTURE_S = 60.0


class ReadError(Exception):
    """The file cannot be read: a word for the worker, and a detail."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(word)
        self.word = word
        self.detail = detail


def main(options: dict[str, Any]) -> None:
    """Read standard input, and write lines."""
    _limit(options)
    try:
        data = sys.stdin.buffer.read()
        if options["is_base64"]:
            data = _decoded(data)
        left = options["text_max"]
        for line in _lines(data, options):
            left -= len(line.get("text", ""))
            if left < 0:
                raise ReadError("long", f"more than {options['text_max']} characters of text")
            _say(line)
    except ReadError as exc:
        _say({"error": exc.word, "detail": exc.detail})
    except MemoryError:
        _say({"error": "memory"})
    except RecursionError:
        _say({"error": "broken", "detail": "it is nested too deeply"})


def _limit(options: dict[str, Any]) -> None:
    memory = options["memory_mb"] * 1_048_576
    for name, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(options["read_s"]) + 2),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(name)
        bound = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(name, (bound, bound))


def _decoded(data: bytes) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except binascii.Error as exc:
        raise ReadError("broken", f"its base64 is damaged: {exc}") from None


def _lines(data: bytes, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if len(data) > options["file_bytes_max"]:
        raise ReadError("large", f"{len(data)} bytes")
    if options["kind"] == "text":
        yield {"total": 1}
        yield {"text": _text_of(data)}
    elif options["kind"] == "picture":
        yield {"total": 1}
        yield {"text": _recognized(data, options["ocr"])}
    else:
        yield from _pdf_lines(data, options)


def _text_of(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:4_096]:
        raise ReadError("broken", "it is no text")
    return data.decode("utf-8-sig", "replace")


def _pdf_lines(data: bytes, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import logging

    from pypdf import PdfReader

    logging.disable(logging.CRITICAL)  # the parser logs each oddity of a file
    if b"%PDF-" not in data[:1_024]:
        raise ReadError("broken", "it is no PDF")
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ReadError("encrypted")
        total = len(reader.pages)
    except (ReadError, MemoryError, RecursionError):
        raise
    except Exception as exc:  # a damaged file may raise anything
        word = "encrypted" if "cryptography" in str(exc) or "AES" in str(exc) else "broken"
        raise ReadError(word, type(exc).__name__) from None
    if total == 0:
        raise ReadError("broken", "it has no pages")
    if total > options["pages_max"]:
        raise ReadError("pages", f"{total} pages")
    yield {"total": total}
    failed = 0
    for number in range(total):
        try:
            page = reader.pages[number]
            text = page.extract_text()
            if not text.strip() and options["ocr"]:
                text = "\n".join(_recognized(each, options["ocr"]) for each in _pictures(page))
        except (ReadError, MemoryError):
            raise
        except Exception as exc:
            failed += 1
            if failed == total:
                raise ReadError("broken", f"no page can be read: {type(exc).__name__}") from None
            text = ""
        yield {"text": text.encode("utf-8", "replace").decode()}


def _pictures(page: Any) -> list[bytes]:
    """Return the pictures of a scanned page that are files of their own inside the PDF."""
    found: list[bytes] = []
    objects: Any = (page.get("/Resources") or {}).get("/XObject")
    for each in objects.get_object().values() if objects is not None else ():
        picture = each.get_object()
        filters = picture.get("/Filter")
        names = filters if isinstance(filters, list) else [filters]
        is_image = picture.get("/Subtype") == "/Image" and len(names) == 1
        if not is_image or len(found) >= PICTURES_OF_PAGE_MAX:
            continue
        if names[0] in JPEG_FILTERS:
            found.append(bytes(picture._data))
        elif names[0] == FAX_FILTER:
            found.append(bytes(picture.get_data()))
    return found


def _recognized(picture: bytes, languages: str) -> str:
    command = ["tesseract", "stdin", "stdout", "-l", languages]
    try:
        done = subprocess.run(
            command,
            input=picture,
            capture_output=True,
            timeout=PICTURE_S,
            check=False,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # else it takes all cores of the worker
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ReadError("ocr", type(exc).__name__) from None
    if done.returncode:
        raise ReadError("ocr", done.stderr.decode("utf-8", "replace").strip()[-200:])
    return done.stdout.decode("utf-8", "replace").strip()


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
