"""/v1/batches: OpenAI's Batch API, with further routes for events, dead letters and redrive.

A node writes a batch's record and wakes the jobs role, which runs the batch (jobs/batch).
Invariant: a batch of another owner is answered 404. Source: docs/batches.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.native.events import respond_with_events
from api.intake.arriving_body import read_body
from api.intake.batch_members import batch_object, digest_of, find_input, read_new_batch
from api.intake.body import check_idempotency_key, invalid_request
from api.intake.large_body import read_members
from api.intake.paging import read_limit, read_number
from api.intake.schedule_members import check_schedule_size, is_scheduled, without_timing
from api.node import Node
from api.resources.schedules import ScheduleRoutes
from api.response import json_response
from shared.batches.input import fetch
from shared.batches.lease import InFlightLine
from shared.batches.record import OUTPUT_BYTES_MAX, Batch, Batches, NewBatch
from shared.config.credentials import SCHEDULES
from shared.errors import Expired
from shared.files.store import FileRecord
from shared.later.schedules import PREFIX, marked
from shared.log.ids import derived_id, new_batch_id
from shared.log.records import Meta

LIMIT, LIMIT_MAX = 20, 100  # items of a page: the default and the maximum
LETTERS_AT_ONCE = 1_000  # dead letters in one read of Redis


class BatchRoutes:
    """The handlers of /v1/batches and of the paths below it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.batches = Batches(node.redis, node.settings)
        self.schedules = ScheduleRoutes(node)

    async def create(self, request: Request) -> ASGIApp:
        """POST /v1/batches: create a batch, or a schedule if the body sets a time."""
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        key = _key(request)
        bytes_max = self.node.settings.body_bytes_max
        async with self.node.bodies.body() as hold:
            raw = await read_body(request.headers, request.receive, bytes_max=bytes_max, hold=hold)
            async with self.node.bodies.turn(len(raw)):
                body = await read_members(self.node.large, raw, bytes_max=bytes_max)
        if is_scheduled(body):
            check_schedule_size(len(raw))
            self.node.require(request, SCHEDULES)
        async with answer_deadline():
            await self.node.note_planner(request)
        if is_scheduled(body):
            return await self._schedule(body, owner, key)
        new = self._read(body, owner)
        async with answer_deadline():
            await find_input(self.node.files, new.input_file_id, owner)
            return await self._create(new, key)

    def _read(self, body: dict[str, Any], owner: str) -> NewBatch:
        settings = self.node.settings
        return read_new_batch(body, owner=owner, batch_id=new_batch_id(), settings=settings)

    async def _schedule(self, body: dict[str, Any], owner: str, key: str) -> ASGIApp:
        """Create a schedule. A request that would be refused when it is due is refused now."""
        request = without_timing(body)
        self._read(request, owner)
        # When it is due, the metadata also names the schedule, and may then be too large.
        new = self._read(marked(request, PREFIX + "0" * 26), owner)
        async with answer_deadline():
            await find_input(self.node.files, new.input_file_id, owner)
        return await self.schedules.create(owner, "batch", body, key=key)

    async def _create(self, new: NewBatch, key: str) -> ASGIApp:
        if key:
            batch_id = await self.batches.reserve(new.owner, key, digest_of(new), new.batch_id)
            new = replace(new, batch_id=batch_id)
        batch, _ = await self.batches.create(new)
        return _answer(batch)

    async def list(self, request: Request) -> ASGIApp:
        """GET /v1/batches: a page, the newest first."""
        owner, names_owners = self.node.listed_owner(request)
        query = request.query_params
        limit = read_limit(query, LIMIT, LIMIT_MAX)
        async with answer_deadline(), self.node.heavy_reads.turn(owner):
            page, has_more = await self.batches.page(
                owner, after=query.get("after", ""), limit=limit
            )
        data = [
            batch_object(batch) | ({"owner": batch.owner} if names_owners else {}) for batch in page
        ]
        return json_response(_page(data, [batch.id for batch in page], has_more))

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/batches/{id}: the batch with its present counts."""
        async with answer_deadline():
            return _answer(await self._batch(request))

    async def cancel(self, request: Request) -> ASGIApp:
        """POST /v1/batches/{id}/cancel: finished lines are kept; an ended batch does not change."""
        owner = self.node.owner_to_end(request)
        async with answer_deadline():
            batch = await self.batches.get(request.path_params["id"], owner)
            await self.batches.cancel(batch.id)
            return _answer(await self.batches.get(batch.id, owner))

    async def events(self, request: Request) -> ASGIApp:
        """GET /v1/batches/{id}/events: like the events of a generation."""
        owner, batch_id = self.node.owner(request), request.path_params["id"]

        async def find() -> Meta:
            await self.batches.get(batch_id, owner)
            meta = await self.node.store.meta(batch_id)
            if meta is None:
                raise Expired
            return meta

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await respond_with_events(
                scope, receive, send,
                hub=self.node.hub, store=self.node.store, viewer=owner, generation_id=batch_id,
                find_other=find,
            )  # fmt: skip

        return stream

    async def dead_letters(self, request: Request) -> ASGIApp:
        """GET /v1/batches/{id}/dead_letters: the failed lines, the first one first."""
        query = request.query_params
        limit = read_limit(query, LIMIT, LIMIT_MAX)
        start = read_number("after", query.get("after") or "0", digits_max=9)
        async with answer_deadline():
            batch = await self._batch(request)
            letters = await self.batches.dead_letters(batch.id, start, limit + 1)
        ids = [str(start + index + 1) for index in range(len(letters))][:limit]
        data = [
            {"id": name, "line": letter.line, "custom_id": letter.custom_id, "code": letter.code}
            for name, letter in zip(ids, letters, strict=False)
        ]
        return json_response(_page(data, ids, len(letters) > limit))

    async def redrive(self, request: Request) -> ASGIApp:
        """POST /v1/batches/{id}/redrive: create a batch of the lines that failed in this one."""
        owner = self.node.owner(request)
        self.node.refuse_while_draining()
        key = _key(request)
        async with answer_deadline():
            batch = await self.batches.get(request.path_params["id"], owner)
            await self.node.note_planner(request)
        return _answer(await self.redrive_of(batch, key=key))

    async def redrive_of(self, batch: Batch, *, key: str) -> Batch:
        """Create a batch of the lines that failed in `batch`, for its owner.

        Args:
            key: a second call with the same key returns the batch that the first one has created.
                Empty: each call creates a batch.

        Raises:
            RequestError: 422 `invalid_request`: the batch has not ended, or no line has failed.
            NotFound: its input file is gone.
            Unavailable, FilesUnavailable: repeat the call with the same key.
        """
        owner = batch.owner
        async with answer_deadline():
            if not batch.is_final:
                raise invalid_request(
                    f"this batch is {batch.status}: wait for its end, or cancel it"
                )
            if not await self.batches.dead_letters(batch.id, 0, 1):
                raise invalid_request("no line of this batch has failed")
            record = await find_input(self.node.files, batch.input_file_id, owner)
            new_id = new_batch_id()
            if key:
                new_id = await self.batches.reserve(owner, key, f"redrive {batch.id}", new_id)
        file = await self.node.files.create(
            owner,
            f"{batch.id}_redrive.jsonl",
            "batch",
            self._failed_lines(batch, record),
            bytes_max=OUTPUT_BYTES_MAX,
            file_id=derived_id("file-", new_id, "input"),
            is_bounded=True,
        )
        metadata = msgspec.json.decode(batch.metadata) | {"redrive_of": batch.id}
        new = NewBatch(
            batch_id=new_id,
            owner=owner,
            endpoint=batch.endpoint,
            input_file_id=file.id,
            window=batch.window,
            window_s=(batch.expires_at_ms - batch.created_at_ms) / 1000,
            metadata=msgspec.json.encode(metadata),
            output_expires_s=batch.output_expires_s,
            webhook=batch.webhook,
        )
        async with answer_deadline():
            created, _ = await self.batches.create(new)
        return created

    async def _failed_lines(self, batch: Batch, record: FileRecord) -> AsyncIterator[bytes]:
        start = 0
        while letters := await self.batches.dead_letters(batch.id, start, LETTERS_AT_ONCE):
            start += len(letters)
            lines = [InFlightLine(letter.line, letter.offset, letter.length) for letter in letters]
            async for _, raw in fetch(self.node.files, record, lines):
                yield raw + b"\n"

    async def _batch(self, request: Request) -> Batch:
        return await self.batches.get(request.path_params["id"], self.node.owner(request))


def _answer(batch: Batch) -> ASGIApp:
    return json_response(batch_object(batch))


def _key(request: Request) -> str:
    key = request.headers.get("idempotency-key")
    return "" if key is None else check_idempotency_key(key)


def _page(data: list[dict[str, Any]], ids: list[str], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
    }
