"""One generation over HTTP: its snapshot, its events, its cancellation and its deletion.

Each handler checks the credentials first, and only then looks for the generation.
"""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.deadline import answer_deadline
from api.dialects.native.events import respond_with_events
from api.node import Node
from api.response import json_response, long_json_response
from shared.config.credentials import Identity
from shared.erasure.generations import GenerationEraser
from shared.errors import Expired, NotFound
from shared.log.ids import START
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.log.snapshot import Snapshot, progress
from shared.queue.endings import cancel


class GenerationRoutes:
    """The handlers of the paths below /v1/generations."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.eraser = GenerationEraser(node.redis, node.store, node.settings)

    async def snapshot(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}."""
        fields = await self.fields_of(request.path_params["id"], self.node.identity(request))
        return await long_json_response(fields)

    async def fields_of(self, generation_id: str, identity: Identity) -> dict[str, Any]:
        """Return the members of a snapshot.

        Raises:
            NotFound, Expired, Unavailable: as the status table says.
        """
        async with answer_deadline():
            meta = await self.node.meta(generation_id, identity)
            async with self.node.heavy_reads.turn(identity.owner):
                snapshot = await self._fold(meta)
        now_ms = time.time_ns() // 1_000_000
        shown = progress(meta, now_ms, shows_worker=identity.share is None)
        fields = snapshot.fields() | shown
        if identity.covers(meta.session):
            fields["author"] = meta.owner
        return fields

    async def _fold(self, meta: Meta) -> Snapshot:
        full_meta = await self.node.store.with_request(meta)
        if full_meta is None:
            raise NotFound
        snapshot = Snapshot(full_meta)
        await read_log(self.node.store, meta.generation_id, snapshot.add)
        if meta.is_ended and snapshot.last_event_id == START:
            raise Expired
        return snapshot

    async def cancel(self, request: Request) -> ASGIApp:
        """POST /v1/generations/{id}/cancel; for operators of any owner, whose text stays hidden."""
        meta = await self.end(request.path_params["id"], self.node.identity(request))
        return json_response({"id": meta.generation_id, "status": meta.status}, 202)

    async def end(self, generation_id: str, identity: Identity) -> Meta:
        """Cancel a generation, and return it; one that has ended does not change.

        Raises:
            NotFound, Unavailable: as `Node.meta_to_end`.
        """
        async with answer_deadline():
            before = await self.node.meta_to_end(generation_id, identity)
            by = self.node.asker(identity, before)
            return await cancel(self.node.store, before.generation_id, by=by) or before

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE /v1/generations/{id}: gone for every reader and dialect, on every node."""
        identity = self.node.identity(request)
        async with answer_deadline():
            meta = await self.node.meta_to_end(request.path_params["id"], identity)
            await self.eraser.erase(meta)
        return json_response({"id": meta.generation_id, "deleted": True})

    async def events(self, request: Request) -> ASGIApp:
        """GET /v1/generations/{id}/events."""
        node, viewer = self.node, self.node.identity(request)
        generation_id = request.path_params["id"]

        async def stream(scope: Scope, receive: Receive, send: Send) -> None:
            await respond_with_events(
                scope, receive, send,
                hub=node.hub, store=node.store, viewer=viewer, generation_id=generation_id,
            )  # fmt: skip

        return stream
