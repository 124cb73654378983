"""A request of deep-chat's that carries files: multipart/form-data, read into the body it means.

The component sends `files`, one part each, its messages as `message1`, `message2`, … in JSON, and
every member of additionalBodyProps as a string, whatever it was. The files belong to what the user
says last. Invariant: nothing is left out in silence; a file that no model could be given is a 4xx
that names it. The whole request is in memory and within the limit of a body. Knows no transport.
Source: docs/protocol.md, "deep-chat".
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from api.errors import request_error
from api.intake.body import wrong
from api.intake.strict_json import check_values, decode_json
from shared.errors import RequestError

FILES = "files"
FILES_MAX = 16
FIELDS_MAX = 1_000  # most of them messages
FIELD_BYTES_MAX = 2**20
PICTURE = re.compile(r"image/[a-z0-9.+-]{1,64}")
_MESSAGE = re.compile(r"message([1-9][0-9]{0,5})", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_OBJECTS = ("params", "metadata")
PIECE_BYTES = 16_384  # parsed at once; the parts' heads cost more than their contents


async def read_form(headers: Headers, raw: bytes) -> dict[str, Any]:
    """Return the members that the same request without files would have had.

    Raises:
        RequestError: 400 no form, 415 a file that is no picture, 422.
    """
    form = await _parse(headers, raw)
    try:
        _check_values(form)
        body: dict[str, Any] = {}
        messages: dict[int, Any] = {}
        for name, value in form.multi_items():
            if name == FILES or not isinstance(value, str):
                continue
            if match := _MESSAGE.fullmatch(name):
                messages[int(match[1])] = decode_json(value)
            else:
                body[name] = member(name, value)
        body["messages"] = [messages[number] for number in sorted(messages)]
        _attach(body["messages"], [await _picture(each) for each in _uploads(form)])
        return body
    finally:
        await form.close()


def member(name: str, value: str) -> Any:
    """Return a member of additionalBodyProps, which the component has made a string of.

    Raises:
        RequestError: 400, 422: an object that is no JSON any more.
    """
    if name == "on_disconnect" and _SECONDS.fullmatch(value):
        return float(value)
    if name not in _OBJECTS:
        return value
    if not value.startswith("{"):
        raise wrong(f"{name}: give it as a string of JSON, or it is lost beside files")
    return decode_json(value)


async def _parse(headers: Headers, raw: bytes) -> FormData:
    # It warns of what clients send: whoever sends those would write our log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    _, options = parse_options_header(headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise _malformed("its content type names no boundary")
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":
        raise _malformed("it is in another charset than UTF-8")
    if b"--" + boundary + b"--" not in raw:
        raise _malformed("it stops before its last boundary")

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), PIECE_BYTES):
            yield raw[start : start + PIECE_BYTES]
            await asyncio.sleep(0)

    parser = MultiPartParser(
        headers,
        pieces(),  # type: ignore[arg-type]
        max_files=FILES_MAX,
        max_fields=FIELDS_MAX,
        max_part_size=FIELD_BYTES_MAX,
    )
    parser.spool_max_size = len(raw) + 1  # never a file on disk
    try:
        return await parser.parse()
    except MultiPartException as exc:
        raise _malformed(exc.message) from None


def _check_values(form: FormData) -> None:
    """All the JSON in a form is one document to whoever reads it afterwards.

    Raises:
        RequestError: 400.
    """
    documents = [
        value
        for name, value in form.multi_items()
        if isinstance(value, str) and (_MESSAGE.fullmatch(name) or name in _OBJECTS)
    ]
    check_values(",".join(documents))


def _uploads(form: FormData) -> list[UploadFile]:
    if any(not isinstance(value, UploadFile) for value in form.getlist(FILES)):
        raise wrong(f"{FILES}: each of them is a file")
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    # A browser's own form has one without a name where nothing was chosen.
    return [upload for upload in uploads if upload.filename or upload.size]


async def _picture(upload: UploadFile) -> dict[str, str]:
    """Return a file as the component's history has it: with its content in its address."""
    media_type = (upload.content_type or "").partition(";")[0].strip().lower()
    if PICTURE.fullmatch(media_type) is None:
        name = (upload.filename or "")[:80]
        raise request_error(
            "unsupported_media_type", f"{name!r}: only pictures can be given to a model here"
        )
    content = base64.b64encode(await upload.read()).decode()
    return {"type": "image", "src": f"data:{media_type};base64,{content}"}


def _attach(messages: list[Any], pictures: list[dict[str, str]]) -> None:
    """Give the pictures to the user's last words; where there were none, they are all he says."""
    if not pictures:
        return
    last = messages[-1] if messages else None
    if not isinstance(last, dict) or last.get("role", "user") != "user":
        messages.append({"role": "user", FILES: pictures})
        return
    files = last.get(FILES)
    last[FILES] = [*files, *pictures] if isinstance(files, list) else pictures


def _malformed(why: str) -> RequestError:
    return request_error("invalid_multipart", f"the body is no multipart form: {why[:200]}")
