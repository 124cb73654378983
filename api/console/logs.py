"""One generation for the console: what meta says, and its raw log, one page at a time.

Without the scope `content` the log shows of each event its id, its type and its size, and the
members that hold no text of a prompt, an answer or a model server.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp

from api.console.guard import operator_of
from api.console.limits import LOG_ENTRIES_PER_PAGE
from api.deadline import answer_deadline
from api.node import Node
from api.response import json_response
from shared.errors import NotFound
from shared.log.ids import is_generation_id, parse_cursor
from shared.log.records import Entry, Meta
from shared.log.request import decode_request
from shared.log.snapshot import summary
from shared.log.visibility import is_visible

PLAIN_MEMBERS = ("type", "attempt", "worker", "reason", "status", "finish_reason", "model")


class ConsoleLogs:
    """The handlers of GET /v1/console/generations/{id}, …/request and …/log."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/console/generations/{id}: the summary, with the owner; prompt with `content`."""
        identity = operator_of(self._node, request)
        async with answer_deadline():
            meta = await self._find(request)
        item: dict[str, Any] = {**summary(meta), "owner": meta.owner, "failures": meta.failures}
        item["may_read"] = is_visible(meta, identity)
        if item["may_read"]:
            item["prompt"] = meta.prompt
        else:
            error = item["error"]
            item |= {"metadata": None, "session": None}
            item["error"] = error and {"code": error["code"], "retryable": error["retryable"]}
        return json_response(item)

    async def request(self, request: Request) -> ASGIApp:
        """GET /v1/console/generations/{id}/request: messages and parameters, with `content`."""
        identity = operator_of(self._node, request)
        async with answer_deadline():
            meta = await self._node.meta(request.path_params["id"], identity)
            async with self._node.heavy_reads.turn(identity.owner):
                full = await self._node.store.with_request(meta)
        if full is None:
            raise NotFound
        asked = decode_request(full.request)
        return json_response({"messages": asked.messages, "params": asked.params})

    async def log(self, request: Request) -> ASGIApp:
        """GET /v1/console/generations/{id}/log: the entries after the event id `after`."""
        identity = operator_of(self._node, request)
        after = parse_cursor(request.query_params.get("after") or "0-0")
        async with answer_deadline():
            meta = await self._find(request)
            count = LOG_ENTRIES_PER_PAGE + 2  # `after` itself, and one more than the page
            async with self._node.heavy_reads.turn(identity.owner):
                page = await self._node.store.page(meta.generation_id, after, count)
        entries = [entry for entry in page if entry[0] != after][: LOG_ENTRIES_PER_PAGE + 1]
        shown = entries[:LOG_ENTRIES_PER_PAGE]
        is_readable = is_visible(meta, identity)
        next_after = str(shown[-1][0]) if len(entries) > len(shown) else None
        return json_response(
            {"data": [_entry(each, is_readable=is_readable) for each in shown], "next": next_after}
        )

    async def _find(self, request: Request) -> Meta:
        generation_id = request.path_params["id"]
        meta = None
        if is_generation_id(generation_id):
            meta = await self._node.store.meta(generation_id)
        if meta is None or meta.status == "sealed":
            raise NotFound
        return meta


def _entry(entry: Entry, *, is_readable: bool) -> dict[str, Any]:
    event_id, raw = entry
    event: dict[str, Any] = msgspec.json.decode(raw)
    if not is_readable:
        error = event.get("error")
        event = {name: event[name] for name in PLAIN_MEMBERS if name in event}
        if isinstance(error, dict):
            event["error"] = {"code": error.get("code")}
    return {"id": str(event_id), "bytes": len(raw), "event": event}
