"""What an operator does in the console: cancel, run again, drain a worker, redrive batches.

Every action is one log line with the name of who did it. The gate (api/edge/gate.py) refuses POSTs
that come from pages of other origins.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from api.console.guard import operator_of
from api.deadline import answer_deadline
from api.errors import request_error
from api.intake.body import model_not_found
from api.node import Node
from api.resources.batches import BatchRoutes
from api.response import json_response
from shared.batches.record import Batch
from shared.config.credentials import EVERYBODY, Identity
from shared.console.board import order_drain
from shared.errors import NotFound, RequestError
from shared.log.request import decode_request
from shared.queue.allowance import estimated_tokens
from shared.queue.endings import cancel
from shared.queue.new_generation import NewGeneration
from shared.queue.presence import workers_seen

log = logging.getLogger(__name__)

REDRIVEN_AT_ONCE = 20  # batches of one request


class ConsoleActions:
    """The handlers of the POSTs below /v1/console."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._batches = BatchRoutes(node)

    async def cancel(self, request: Request) -> ASGIApp:
        """POST /v1/console/generations/{id}/cancel."""
        identity = operator_of(self._node, request)
        async with answer_deadline():
            before = await self._node.meta_to_end(request.path_params["id"], identity)
            by = self._node.asker(identity, before)
            meta = await cancel(self._node.store, before.generation_id, by=by) or before
        note_action("cancel", meta.generation_id, identity, meta.status)
        return json_response({"id": meta.generation_id, "status": meta.status}, 202)

    async def replay(self, request: Request) -> ASGIApp:
        """POST /v1/console/generations/{id}/replay: start the same request again.

        The new generation belongs to the operator, who can then read its prompt. So the operator
        must be allowed to read the old one: with the scope `content` those of all owners. The new
        generation is in no session.
        """
        identity = operator_of(self._node, request)
        self._node.refuse_while_draining()
        async with answer_deadline():
            meta = await self._node.meta(request.path_params["id"], identity)
            async with self._node.heavy_reads.turn(identity.owner):
                full = await self._node.store.with_request(meta)
        if full is None:
            raise NotFound
        if meta.model not in self._node.models:
            raise model_not_found(meta.model)
        asked = decode_request(full.request)
        if asked.audio:
            raise request_error("invalid_request", "its audio is gone: start it with audio again")
        new = NewGeneration(
            owner=identity.owner,
            model=meta.model,
            request=full.request,
            metadata=msgspec.json.encode({"replay_of": meta.generation_id}),
            priority=meta.priority,
            prompt=meta.prompt,
            dialect=meta.dialect,
            tokens=estimated_tokens(asked),
        )
        accepted = await self._node.acceptance.accept(new, identity, is_read=False)
        note_action("replay", meta.generation_id, identity, accepted.generation_id)
        return json_response({"id": accepted.generation_id, "replay_of": meta.generation_id}, 202)

    async def drain(self, request: Request) -> ASGIApp:
        """POST /v1/console/workers/{id}/drain: what SIGTERM does; the worker reads it soon."""
        identity, worker = operator_of(self._node, request), request.path_params["id"]
        async with answer_deadline():
            seen = await workers_seen(self._node.redis)
            if not any(presence.worker == worker for presence in seen):
                raise NotFound("worker")
            await order_drain(self._node.redis, worker, identity.owner)
        note_action("drain", worker, identity, "ordered")
        return json_response({"id": worker, "status": "draining"}, 202)

    async def redrive(self, request: Request) -> ASGIApp:
        """POST /v1/console/batches/{id}/redrive: a batch of the lines that failed in this one.

        It belongs to the owner of the batch. A batch is redriven once: a second request answers
        with the batch that the first one has created.
        """
        identity = operator_of(self._node, request)
        self._node.refuse_while_draining()
        async with answer_deadline():
            batch = await self._batches.batches.get(request.path_params["id"], EVERYBODY)
        made = await self._redrive(batch, identity)
        return json_response({"id": batch.id, "redriven_as": made}, 202)

    async def redrive_all(self, request: Request) -> ASGIApp:
        """POST /v1/console/batches/redrive: redrive the named batches; the answer names failures.

        The query `ids` has up to `REDRIVEN_AT_ONCE` ids, separated by commas.
        """
        identity = operator_of(self._node, request)
        self._node.refuse_while_draining()
        ids = [name for name in request.query_params.get("ids", "").split(",") if name]
        if not ids or len(ids) > REDRIVEN_AT_ONCE:
            message = f"ids must name 1 to {REDRIVEN_AT_ONCE} batches, separated by commas"
            raise request_error("invalid_request", message)
        data: list[dict[str, Any]] = []
        for name in ids:
            try:
                async with answer_deadline():
                    batch = await self._batches.batches.get(name, EVERYBODY)
                data.append({"id": name, "redriven_as": await self._redrive(batch, identity)})
            except RequestError as exc:
                data.append({"id": name, "error": {"code": exc.code, "message": exc.message}})
        return json_response({"data": data}, 202)

    async def _redrive(self, batch: Batch, identity: Identity) -> str:
        made = await self._batches.redrive_of(batch, key=f"console {batch.id}")
        note_action("redrive", batch.id, identity, made.id)
        return made.id


def note_action(action: str, subject: str, identity: Identity, outcome: str) -> None:
    """Log one action with the name of who did it."""
    log.info(
        "console action",
        extra={"action": action, "subject": subject, "by": identity.owner, "outcome": outcome},
    )
