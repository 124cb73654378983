"""/v1/files: OpenAI's Files. Batches read their input from files and write their output to them.

Uploads and downloads are streamed. A file exists once its record is written, after all its bytes: a
client that disconnects during the upload leaves no file. Invariant: a file of another owner is
answered 404. Source: docs/protocol.md, "Files".
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.errors import RETRY_AFTER_S, request_error
from api.intake.body import invalid_request
from api.intake.content_coding import BodyDecoder, check_coding
from api.intake.upload import (
    FORM_BYTES_MAX,
    PURPOSES,
    MultipartForm,
    announced_bytes,
    file_pieces,
    open_form,
)
from api.node import Node
from api.readers.disconnect import DisconnectWatcher
from api.resources.download import Download, byte_range, content_start, head_only
from api.response import json_response
from api.transport.extensions import break_off
from shared.errors import FilesUnavailable, NotFound, RequestError, Unavailable
from shared.files.store import FileRecord, FileStore
from shared.redis.client import translated

logger = logging.getLogger(__name__)

LIMIT, LIMIT_MAX = 100, 10_000  # files of a page: the default and the maximum
LISTED = (*PURPOSES, "batch_output")  # the purposes that a listing can ask for
_LIMIT = re.compile(r"[0-9]{1,5}", re.ASCII)


class FileRoutes:
    """The handlers of /v1/files."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @property
    def files(self) -> FileStore:
        return self.node.files

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/files: upload a file."""
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        form = open_form(request.headers, bytes_max=self.node.settings.file_bytes_max)
        coding = check_coding(",".join(request.headers.getlist("content-encoding")))
        async with (
            answer_deadline()
        ):  # refuse before the body is read if no record could be written
            with translated():
                await self.node.redis.ping()
        announced = max(0, announced_bytes(request.headers) - FORM_BYTES_MAX)
        async with answer_deadline():
            with translating_store_errors():
                room = await self.files.room(owner, announced)
        async with self.node.uploads.turn(owner) as turn:
            pieces = room.within(file_pieces(form, request.receive, turn, BodyDecoder(coding)))
            record = await self._store(form, owner, pieces)
        return json_response(file_object(record))

    async def _store(
        self, form: MultipartForm, owner: str, pieces: AsyncIterator[bytes]
    ) -> FileRecord:
        bytes_max = self.node.settings.file_bytes_max
        with translating_store_errors():
            file_id, size = await self.files.store(pieces, bytes_max=bytes_max)
        async with answer_deadline():
            return await self.files.record(
                file_id,
                owner=owner,
                size=size,
                filename=form.filename,
                purpose=form.purpose,
                expires_s=form.expires_s,
                is_bounded=True,
            )

    async def list(self, request: Request) -> ASGIApp:
        """GET /v1/files: a page; the newest first unless `order=asc`."""
        owner, query = self.node.owner(request), request.query_params
        limit = query.get("limit", str(LIMIT))
        if _LIMIT.fullmatch(limit) is None or not 1 <= int(limit) <= LIMIT_MAX:
            raise invalid_request(f"limit must be from 1 to {LIMIT_MAX}")
        order, purpose = query.get("order", "desc"), query.get("purpose")
        if order not in ("asc", "desc"):
            raise invalid_request("order must be asc or desc")
        if purpose is not None and purpose not in LISTED:
            raise invalid_request(f"purpose must be one of {', '.join(LISTED)}")
        async with answer_deadline(), self.node.heavy_reads.turn(owner):
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
        """DELETE /v1/files/{id}: delete the record and the bytes."""
        record = await self._record(request)
        async with answer_deadline():
            await self.files.delete(record.id, record.owner)
        return json_response({"id": record.id, "object": "file", "deleted": True})

    async def content(self, request: Request) -> ASGIApp:
        """GET /v1/files/{id}/content: the bytes, or the range that the header Range asks for."""
        record = await self._record(request)
        start, stop = byte_range(request.headers.get("range", ""), record.bytes)
        begun = content_start(record, start, stop)
        if request.method == "HEAD":
            return head_only(begun)
        pieces = self.files.read(record, start)
        download = Download(begun, pieces, stop - start)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                async with aclosing(pieces), self.node.downloads.turn(record.owner) as turn:
                    async with answer_deadline():
                        with translating_store_errors():
                            await download.open()
                    await download.run(turn, scope, receive, send)
            except (RequestError, Unavailable) as exc:
                if not download.has_begun:
                    raise
                logger.warning("file broken off", extra={"reason": str(exc)})
                break_off(scope)
                await DisconnectWatcher.wait(receive)

        return answer

    async def _record(self, request: Request) -> FileRecord:
        owner = self.node.owner(request)
        async with answer_deadline():
            record = await self.files.get(request.path_params["id"], owner)
        if record is None:
            raise NotFound("file")
        return record


@contextmanager
def translating_store_errors() -> Iterator[None]:
    """Turn an error of the file store into a 503 for the client, and log its reason.

    Raises:
        RequestError: 503 `unavailable`.
    """
    try:
        yield
    except FilesUnavailable as exc:
        logger.warning("file store away", extra={"reason": str(exc)})
        what = "files cannot be stored or read now: try again"
        raise request_error("unavailable", what, retry_after_s=RETRY_AFTER_S) from exc


def file_object(record: FileRecord) -> dict[str, Any]:
    """Return a file in the shape of OpenAI's API."""
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
