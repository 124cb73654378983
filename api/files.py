"""/v1/files: OpenAI's Files, streamed in and out; what batches read and write.

An upload goes to the store as it comes, and is there when its record is: whoever hangs up in
between leaves nothing. Somebody else's file is 404. Source: docs/protocol.md, "Files".
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.body import wrong
from api.errors import RETRY_AFTER_S, break_off, request_error
from api.hub.departure import Departure
from api.node import Node, answering, json_response
from api.upload import PURPOSES, Form, file_pieces, open_form
from shared.errors import FilesUnavailable, NotFound, RequestError, Unavailable
from shared.files import FileRecord, FileStore
from shared.redis_client import translated

logger = logging.getLogger(__name__)

LIMIT, LIMIT_MAX = 100, 10_000
LISTED = (*PURPOSES, "batch_output")
_LIMIT = re.compile(r"[0-9]{1,5}", re.ASCII)
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})", re.ASCII)


class Files:
    """The handlers of /v1/files."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def files(self) -> FileStore:
        return self.node.files

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/files."""
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        form = open_form(request.headers, bytes_max=self.node.settings.file_bytes_max)
        async with answering():  # before a body is taken that could not be kept
            with translated():
                await self.node.redis.ping()
        async with self.node.uploads.turn():
            record = await self._store(form, owner, request.receive)
        return json_response(file_object(record))

    async def _store(self, form: Form, owner: str, receive: Receive) -> FileRecord:
        bytes_max = self.node.settings.file_bytes_max
        pieces = file_pieces(form, receive)
        with refusing():
            file_id, size = await self.files.store(pieces, bytes_max=bytes_max)
        async with answering():
            return await self.files.record(
                file_id,
                owner=owner,
                size=size,
                filename=form.filename,
                purpose=form.purpose,
                expires_s=form.expires_s,
            )

    async def list(self, request: Request) -> ASGIApp:
        """GET /v1/files, the newest first."""
        owner, query = self.node.owner(request), request.query_params
        limit = query.get("limit", str(LIMIT))
        if _LIMIT.fullmatch(limit) is None or not 1 <= int(limit) <= LIMIT_MAX:
            raise wrong(f"limit must be from 1 to {LIMIT_MAX}")
        order, purpose = query.get("order", "desc"), query.get("purpose")
        if order not in ("asc", "desc"):
            raise wrong("order must be asc or desc")
        if purpose is not None and purpose not in LISTED:
            raise wrong(f"purpose must be one of {', '.join(LISTED)}")
        async with answering(), self.node.heavy_reads.turn(owner):
            page, has_more = await self.files.page(
                owner,
                after=query.get("after", ""),
                limit=int(limit),
                purpose=purpose or "",
                order=order,
            )
        return json_response(
            {
                "object": "list",
                "data": [file_object(record) for record in page],
                "first_id": page[0].id if page else None,
                "last_id": page[-1].id if page else None,
                "has_more": has_more,
            }
        )

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/files/{id}."""
        return json_response(file_object(await self._record(request)))

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE /v1/files/{id}: record and bytes."""
        record = await self._record(request)
        async with answering():
            await self.files.delete(record.id, record.owner)
        return json_response({"id": record.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> ASGIApp:
        """GET /v1/files/{id}/content, from a byte on where a Range asks for it."""
        record = await self._record(request)
        start, stop = byte_range(request.headers.get("range", ""), record.bytes)
        is_head = request.method == "HEAD"
        pieces = self.files.read(record, start)
        async with answering():
            with refusing():
                first = b"" if is_head else await anext(pieces, b"")

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            begun = _content_start(record, start, stop)
            if is_head:
                await send(begun)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            has_begun = False
            try:
                async with aclosing(pieces), self.node.downloads.turn():
                    has_begun = True
                    await send(begun)
                    await _send_pieces(first, pieces, stop - start, receive, send)
            except (RequestError, Unavailable) as exc:
                if not has_begun:
                    raise
                logger.warning("file broken off", extra={"reason": str(exc)})
                break_off(scope)
                await Departure.wait(receive)

        return answer

    async def _record(self, request: Request) -> FileRecord:
        owner = self.node.owner(request)
        async with answering():
            record = await self.files.get(request.path_params["id"], owner)
        if record is None:
            raise NotFound("file")
        return record


@contextmanager
def refusing() -> Iterator[None]:
    """Say that files cannot be had right now, here to the client and in the log why.

    Raises:
        RequestError: 503.
    """
    try:
        yield
    except FilesUnavailable as exc:
        logger.warning("file store away", extra={"reason": str(exc)})
        what = "files can be neither kept nor read right now: ask again"
        raise request_error("unavailable", what, retry_after_s=RETRY_AFTER_S) from exc


async def _send_pieces(
    first: bytes, rest: AsyncGenerator[bytes, None], count: int, receive: Receive, send: Send
) -> None:
    """Send `count` bytes; stop where the client has gone.

    Raises:
        NotFound, Unavailable: the store has no more.
    """
    is_left = False

    def leave() -> None:
        nonlocal is_left
        is_left = True

    departure = Departure(receive, leave)
    try:
        piece = first
        while not is_left:
            piece = piece[:count]
            count -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": count > 0})
            if not count:
                return
            piece = await anext(rest, b"")
            if not piece:
                raise FilesUnavailable("the object is too short")
    finally:
        departure.close()


def _content_start(record: FileRecord, start: int, stop: int) -> dict[str, Any]:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % (stop - start)),
        (b"content-disposition", disposition(record.filename)),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    is_part = stop - start < record.bytes
    if is_part:
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, record.bytes)))
    status = 206 if is_part else 200
    return {"type": "http.response.start", "status": status, "headers": headers}


def byte_range(value: str, size: int) -> tuple[int, int]:
    """Return from where to where a Range header asks; what cannot be served asks for everything."""
    match = _RANGE.fullmatch(value)
    if match is None:
        return 0, size
    start, stop = int(match[1]), int(match[2] or size) + (1 if match[2] else 0)
    return (start, min(stop, size)) if start < min(stop, size) else (0, size)


def disposition(filename: str) -> bytes:
    """Return a header that names a file, whatever is in the name (RFC 6266)."""
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}".encode()


def file_object(record: FileRecord) -> dict[str, Any]:
    """Return a file as OpenAI's API has it."""
    return {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }
