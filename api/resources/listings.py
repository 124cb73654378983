"""Listings: the generations of a session, the generations of an owner, the models, the workers.

A page holds at most 100 generations, newest first, and names the `before` of the next page. The
indexes also name generations that have expired. So a page reads on until it is full, in a bounded
part of the index, and `before` follows from the rows that were read and not from those that exist.
Invariant: a page does not end between two generations of the same millisecond, because `before` is
a time in ms and could not tell them apart.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.edge.path_forms import mend_name
from api.errors import request_error
from api.intake.body import model_not_found
from api.node import Node
from api.resources.health import jobs_content, workers_with_age_ms
from api.response import json_response
from shared.config.credentials import EVERYBODY, SESSION_CHARACTERS_MAX, Identity, Share
from shared.config.models import Model
from shared.errors import NotFound
from shared.later.lag import read_lag
from shared.log.records import Meta
from shared.log.snapshot import progress, summary
from shared.log.visibility import is_visible
from shared.queue.overview import (
    IndexRow,
    oldest_waiting_s,
    owner_rows,
    queue_depths,
    session_rows,
    unfinished_rows,
)
from shared.queue.partitions import partitions_of

PAGE_GENERATIONS = 100
ROWS = PAGE_GENERATIONS + 1  # of an index in one read: one more shows that more follow
# For one page, so that it is answered in time however many generations have expired.
INDEX_READS_MAX = 10
_BEFORE = re.compile(r"[0-9]{1,15}", re.ASCII)

# Returns up to `ROWS` rows that are older than a time (Unix ms; None: the newest), newest first.
ReadRows = Callable[[int | None], Awaitable[list[IndexRow]]]


class ListingRoutes:
    """The handlers of the listings."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def session(self, request: Request) -> ASGIApp:
        """GET /v1/sessions/{session}: a page; for an unused session an empty page.

        With a token whose claim covers the session: the generations of all owners, with their
        authors.
        """
        name, before_ms = request.path_params["session"], read_before_ms(request)
        return json_response(
            await self.session_content(name, self.node.identity(request), before_ms)
        )

    async def session_content(
        self, name: str, identity: Identity, before_ms: int | None
    ) -> dict[str, Any]:
        """Return the page of a session whose generations are older than `before_ms` (Unix ms).

        Raises:
            NotFound: no session can have this name.
            Unavailable: Redis did not answer in time.
        """
        if not name or len(name) > SESSION_CHARACTERS_MAX:
            raise NotFound("session")
        owner = None if identity.covers(name) else identity.owner
        share = identity.share

        async def read(before_ms: int | None) -> list[IndexRow]:
            if share is not None and share.session != name:
                return await self._shared_rows(share, name, before_ms)
            return await session_rows(self.node.redis, owner, name, ROWS, before_ms=before_ms)

        async with answer_deadline():
            content = await self._page(read, before_ms, identity)
        return {"session": name, **content}

    async def _shared_rows(
        self, share: Share, session: str, before_ms: int | None
    ) -> list[IndexRow]:
        """Return the generation of a share if it is in `session`, and nothing of its maker's."""
        (meta,) = await self.node.store.metas([share.generation]) if share.generation else (None,)
        if meta is None or meta.session != session:
            return []
        rows = [IndexRow(share.generation, meta.created_at_ms)]
        return [row for row in rows if before_ms is None or row.created_ms < before_ms]

    async def generations(self, request: Request) -> ASGIApp:
        """GET /v1/generations: the owner's, of all sessions; with `active=1` only the unfinished.

        `active=1` filters the page, so a page may then be empty although more pages follow. For
        operators `owner` names another owner, or with `*` the unfinished generations of all owners.
        """
        identity, before_ms = self.node.identity(request), read_before_ms(request)
        owner, names_owners = self.node.listed_owner(request)

        async def read(before_ms: int | None) -> list[IndexRow]:
            if owner != EVERYBODY:
                return await owner_rows(self.node.redis, owner, ROWS, before_ms=before_ms)
            async with self.node.heavy_reads.turn(identity.owner):
                return await unfinished_rows(self.node.store, ROWS, before_ms=before_ms)

        async with answer_deadline():
            content = await self._page(read, before_ms, identity, names_owners=names_owners)
        if request.query_params.get("active") in ("1", "true"):
            content["generations"] = [
                item for item in content["generations"] if item["id"] in content["active"]
            ]
        return json_response(content)

    async def _page(
        self,
        read: ReadRows,
        before_ms: int | None,
        viewer: Identity,
        *,
        names_owners: bool = False,
    ) -> dict[str, Any]:
        """Return a page.

        Args:
            read: reads the index.
            names_owners: an operator lists named owners. Rows that the operator may not see are
                in the page, too, but without prompts and answers.
        """
        page: list[Meta] = []
        next_before = before_ms
        for _ in range(INDEX_READS_MAX):
            rows = await read(next_before)
            number, next_before = cut([row.created_ms for row in rows], PAGE_GENERATIONS)
            page += await self._metas(rows[:number], viewer, names_owners=names_owners)
            if next_before is None or len(page) >= PAGE_GENERATIONS:
                break
        if len(page) > PAGE_GENERATIONS:
            page, next_before = cut_page(page, PAGE_GENERATIONS)
        now_ms = time.time_ns() // 1_000_000
        own = viewer.share is None
        items = [
            summary(meta) | progress(meta, now_ms, shows_worker=own) | {"prompt": meta.prompt}
            for meta in page
        ]
        for item, meta in zip(items, page, strict=True):
            if viewer.covers(meta.session):
                item["author"] = meta.owner
            if names_owners:
                item["owner"] = meta.owner
            if not is_visible(meta, viewer):
                _hide_words(item)
        return {
            "generations": items,
            "active": [meta.generation_id for meta in page if not meta.is_ended],
            "next_before": next_before,
        }

    async def _metas(
        self, rows: Sequence[IndexRow], viewer: Identity, *, names_owners: bool
    ) -> list[Meta]:
        """Return the metas of those rows that exist and may be in the page."""
        # Usually small; about 3 MB with the longest prompts and metadata.
        async with self.node.heavy_reads.turn(viewer.owner):
            found = await self.node.store.metas([row.generation_id for row in rows])
        if names_owners:
            return [meta for meta in found if meta is not None and is_visible(meta, meta.owner)]
        return [meta for meta in found if is_visible(meta, viewer)]

    async def models(self, request: Request) -> ASGIApp:
        """GET /v1/models: all models, in the shape of OpenAI's API."""
        self.node.owner(request)
        data = [self._model(model) for model in self.node.models.values()]
        return json_response({"object": "list", "data": data})

    async def model(self, request: Request) -> ASGIApp:
        """GET /v1/models/{model}: one model, in the same shape."""
        name = request.path_params["model"]
        mended = mend_name(name)
        if not mended:  # the listing's path with a slash at its end
            return await self.models(request)
        self.node.owner(request)
        # A name may have slashes anywhere, so the exact one comes first.
        model = self.node.models.get(name) or self.node.models.get(mended)
        if model is None:
            raise model_not_found(name)
        return json_response(self._model(model))

    def _model(self, model: Model) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self.node.started_at,
            "owned_by": "tailrace",
            "backend": model.kind.name,
            "on_takeover": model.on_takeover,
            **({"audio": True} if model.takes_audio else {}),
        }

    async def workers(self, request: Request) -> ASGIApp:
        """GET /v1/workers: the workers, and the depth of each queue lane; for operators only."""
        async with answer_deadline():
            seen = await workers_with_age_ms(self.node.redis)
            depths = await queue_depths(self.node.store)
            ages_s = await oldest_waiting_s(self.node.redis, partitions_of(self.node.settings))
            lag = await read_lag(self.node.redis)
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
        content = {"workers": workers, "queue": depths, "oldest_s": ages_s}
        return json_response({**content, "jobs": jobs_content(lag)})


def _hide_words(item: dict[str, Any]) -> None:
    """Leave out the client's texts, and error messages in which a model server may quote them."""
    error = item["error"]
    shown = None if error is None else {**error, "message": "", "upstream": None}
    item |= {"prompt": None, "metadata": None, "session": None, "error": shown}


def cut_page(metas: Sequence[Meta], limit: int) -> tuple[list[Meta], int | None]:
    """Return a page, and the `before` of the next page (None: this is the last page).

    Args:
        metas: newest first; one more than `limit` if there are more.
    """
    number, next_before = cut([meta.created_at_ms for meta in metas], limit)
    return list(metas[:number]), next_before


def cut(times_ms: Sequence[int], limit: int) -> tuple[int, int | None]:
    """Return how many of these a page takes, and the `before` of the next page; as `cut_page`."""
    if len(times_ms) <= limit:
        return len(times_ms), None
    number = sum(time_ms != times_ms[limit] for time_ms in times_ms[:limit]) or limit
    return number, times_ms[number - 1]


def read_before_ms(request: Request) -> int | None:
    """Return the query's `before`, Unix ms; None: absent or empty.

    Raises:
        RequestError: 400 `cursor_invalid`.
    """
    text = request.query_params.get("before")
    if not text:
        return None
    if _BEFORE.fullmatch(text) is None:
        raise request_error("cursor_invalid", "before must be the next_before of the previous page")
    return int(text)
