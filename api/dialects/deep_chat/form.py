"""A request of deep-chat with files: reads multipart/form-data into the members of a JSON body.

The component sends each file as a part `files`, its messages as parts `message1`, `message2`, … in
JSON, and every member of additionalBodyProps as a string, whatever its type was. The files belong
to the last message of the user. Invariant: nothing is left out in silence; a file that no model can
be given is refused with a 4xx that names the file. The whole request is in memory, and within the
limit of a body. Knows no transport.
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
from api.intake.arriving_body import Buffer
from api.intake.body import invalid_request
from api.intake.large_json import STEPPED_BYTES, decode_large
from api.intake.strict_json import check_values, decode_json
from shared.errors import RequestError

FILES = "files"
FILES_MAX = 16
FIELDS_MAX = 1_000  # messages and additionalBodyProps
PICTURE = re.compile(r"image/[a-z0-9.+-]{1,64}")
DOCUMENT = re.compile(r"application/pdf|text/[a-z0-9.+-]{1,64}")
_MESSAGE_NAME = re.compile(r"message([1-9][0-9]{0,5})", re.ASCII)
_NUMBER_MEMBERS = ("on_disconnect", "queue_wait_s", "deadline_s")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_OBJECT_MEMBERS = ("params", "metadata")
# Bytes that are parsed before the loop gets a turn. The headers of parts cost the most.
PIECE_BYTES = 16_384
ENCODED_BYTES = 786_432  # of a file in one step; a multiple of 3, so that the pieces join


async def read_form(headers: Headers, raw: Buffer) -> dict[str, Any]:
    """Return the members that the JSON body of the same request without files would have.

    Args:
        raw: the whole body.

    Raises:
        RequestError: 400, the body is not a form or a part is not JSON; 415, a file is no
            picture, PDF or text; 422, a member is wrong.
    """
    form = await _parse_form(headers, raw)
    try:
        _check_values(form)
        body: dict[str, Any] = {}
        messages: dict[int, Any] = {}
        for name, value in form.multi_items():
            if name == FILES or not isinstance(value, str):
                continue
            if match := _MESSAGE_NAME.fullmatch(name):
                messages[int(match[1])] = await _decode(value)
            else:
                body[name] = read_text_member(name, value)
        body["messages"] = [messages[number] for number in sorted(messages)]
        files = [await _read_file(upload) for upload in _uploads(form)]
        _attach_files(body["messages"], files)
        return {name: value for name, value in body.items() if value is not None}
    finally:
        await form.close()


def read_text_member(name: str, value: str) -> Any:
    """Return the value of a member of additionalBodyProps that the component sent as a string.

    Raises:
        RequestError: 400, invalid JSON; 422, the component has turned an object into text that is
            not JSON.
    """
    if name in _NUMBER_MEMBERS and _SECONDS.fullmatch(value):
        return float(value)
    if name not in _OBJECT_MEMBERS:
        return value
    if not value.startswith("{"):
        raise invalid_request(f"{name}: give it as a string of JSON, or it is lost beside files")
    return decode_json(value)


async def _decode(value: str) -> Any:
    if len(value) <= STEPPED_BYTES:
        return decode_json(value)
    return await decode_large(value.encode("utf-8", "surrogatepass"))


async def _parse_form(headers: Headers, raw: Buffer) -> FormData:
    # The parser logs warnings about malformed bodies. Clients could fill our log with them.
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
            yield bytes(raw[start : start + PIECE_BYTES])
            await asyncio.sleep(0)

    parser = MultiPartParser(
        headers,
        pieces(),  # type: ignore[arg-type]
        max_files=FILES_MAX,
        max_fields=FIELDS_MAX,
        max_part_size=len(raw),  # a message may repeat the pictures of the conversation
    )
    parser.spool_max_size = len(raw) + 1  # never a file on disk
    try:
        return await parser.parse()
    except MultiPartException as exc:
        raise _malformed(exc.message) from None


def _check_values(form: FormData) -> None:
    """Check the number of values in all JSON of the form as if it were one document.

    Raises:
        RequestError: 400, too many values.
    """
    documents = [
        value
        for name, value in form.multi_items()
        if isinstance(value, str) and (_MESSAGE_NAME.fullmatch(name) or name in _OBJECT_MEMBERS)
    ]
    check_values(",".join(documents))


def _uploads(form: FormData) -> list[UploadFile]:
    if any(not isinstance(value, UploadFile) for value in form.getlist(FILES)):
        raise invalid_request(f"{FILES}: each of them is a file")
    uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    # A browser's form without a chosen file has an empty part without a file name.
    return [upload for upload in uploads if upload.filename or upload.size]


async def _read_file(upload: UploadFile) -> dict[str, str]:
    """Return a file as it is in the component's history, with its content in a data URL.

    Raises:
        RequestError: 415, the file is no picture, PDF or text.
    """
    media_type = (upload.content_type or "").partition(";")[0].strip().lower()
    name = upload.filename or ""
    if PICTURE.fullmatch(media_type) is None and DOCUMENT.fullmatch(media_type) is None:
        raise request_error(
            "unsupported_media_type",
            f"{name[:80]!r}: only pictures, PDFs and texts can be given to a model here",
        )
    content = await _in_base64(await upload.read())
    source = f"data:{media_type};base64,{content}"
    if PICTURE.fullmatch(media_type):
        return {"type": "image", "src": source}
    return {"type": "any", "src": source, "name": name}


async def _in_base64(raw: bytes) -> str:
    """Encode a file in steps: 32 MiB at once would block the event loop for 60 ms."""
    pieces = []
    for start in range(0, len(raw), ENCODED_BYTES):
        pieces.append(base64.b64encode(raw[start : start + ENCODED_BYTES]).decode())
        if len(raw) > ENCODED_BYTES:
            await asyncio.sleep(0)
    return "".join(pieces)


def _attach_files(messages: list[Any], added: list[dict[str, str]]) -> None:
    """Add the files to the last message if it is the user's; else add a message for them."""
    if not added:
        return
    last = messages[-1] if messages else None
    if not isinstance(last, dict) or last.get("role", "user") != "user":
        messages.append({"role": "user", FILES: added})
        return
    files = last.get(FILES)
    last[FILES] = [*files, *added] if isinstance(files, list) else added


def _malformed(reason: str) -> RequestError:
    return request_error("invalid_multipart", f"the body is no multipart form: {reason[:200]}")
