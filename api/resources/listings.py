"""Listings: the generations of a session, those of an owner, the models and the workers.

A page holds at most 100, newest first, and names the `before` of the next one. Its last place is
never cut between two generations of one millisecond, for `before` could not tell them apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answering
from api.errors import request_error
from api.intake.body import SESSION_CHARACTERS_MAX, model_not_found
from api.node import Node
from api.resources.health import worker_age_ms
from api.response import json_response
from shared.config.models import Model
from shared.errors import NotFound
from shared.log.records import Meta
from shared.log.snapshot import summary
from shared.queue.lanes import owner_ids, queue_depths, session_ids

PAGE_GENERATIONS = 100
_BEFORE = re.compile(r"[0-9]{1,15}", re.ASCII)


class ListingRoutes:
    """The handlers that list things."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def session(self, request: Request) -> ASGIApp:
        """GET /v1/sessions/{session}; a session that nobody has used is an empty one."""
        owner = self.node.owner(request)
        name = request.path_params["session"]
        if not name or len(name) > SESSION_CHARACTERS_MAX:
            raise NotFound("session")
        before_ms = read_before(request)
        async with answering():
            ids = await session_ids(
                self.node.redis, owner, name, PAGE_GENERATIONS + 1, before_ms=before_ms
            )
            content = await self._page(ids, owner)
        return json_response({"session": name, **content})

    async def generations(self, request: Request) -> ASGIApp:
        """GET /v1/generations: the asker's, of any session; with `active=1` the unfinished."""
        owner = self.node.owner(request)
        before_ms = read_before(request)
        async with answering():
            ids = await owner_ids(self.node.redis, owner, PAGE_GENERATIONS + 1, before_ms=before_ms)
            content = await self._page(ids, owner)
        if request.query_params.get("active") in ("1", "true"):
            content["generations"] = [
                item for item in content["generations"] if item["id"] in content["active"]
            ]
        return json_response(content)

    async def _page(self, ids: Sequence[str], owner: str) -> dict[str, Any]:
        # Small as a rule; with the longest prompts and metadata some 3 MB.
        async with self.node.heavy_reads.turn(owner):
            found = await self.node.store.metas(ids)
        metas = [
            meta
            for meta in found
            if meta is not None and meta.owner == owner and meta.status != "sealed"
        ]
        page, next_before = cut_page(metas, PAGE_GENERATIONS)
        items = [{**summary(meta), "prompt": meta.prompt} for meta in page]
        return {
            "generations": items,
            "active": [meta.generation_id for meta in page if not meta.is_ended],
            "next_before": next_before,
        }

    async def models(self, request: Request) -> ASGIApp:
        """GET /v1/models, in the shape that OpenAI's clients read."""
        self.node.owner(request)
        data = [self._model(model) for model in self.node.models.values()]
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> ASGIApp:
        """GET /v1/models/{model}."""
        self.node.owner(request)
        model = self.node.models.get(request.path_params["model"])
        if model is None:
            raise model_not_found(request.path_params["model"])
        return json_response(self._model(model))

    def _model(self, model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self.node.started_at,
            "owned_by": "tailrace",
            "backend": model.backend,
            "on_takeover": model.on_takeover,
        }

    async def workers(self, request: Request) -> ASGIApp:
        """GET /v1/workers: who works, and how much waits; for operators."""
        self.node.require_operator(request)
        async with answering():
            seen = await worker_age_ms(self.node.redis)
            depths = await queue_depths(self.node.redis)
        workers = [
            {
                "id": presence.worker,
                "slots": presence.slots,
                "running": presence.running,
                "draining": presence.draining,
                "seen_s": round(age_ms / 1000, 1),
            }
            for presence, age_ms in sorted(seen, key=lambda pair: pair[0].worker)
        ]
        return json_response({"workers": workers, "queue": depths})


def cut_page(metas: Sequence[Meta], limit: int) -> tuple[list[Meta], int | None]:
    """Return the page and the `before` of the next one; None: there is no next one.

    Args:
        metas: newest first; one more than `limit` where there are more.
    """
    if len(metas) <= limit:
        return list(metas), None
    page = list(metas[:limit])
    over = metas[limit].created_at_ms
    whole = [meta for meta in page if meta.created_at_ms != over]
    page = whole or page
    return page, page[-1].created_at_ms


def read_before(request: Request) -> int | None:
    text = request.query_params.get("before")
    if not text:
        return None
    if _BEFORE.fullmatch(text) is None:
        raise request_error("cursor_invalid", "before: the next_before of the page before")
    return int(text)
