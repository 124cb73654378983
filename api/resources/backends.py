"""GET /v1/backends: the health of the backends. Source: docs/protocol.md."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.node import Node
from api.response import json_response
from shared.backends.overview import BackendView, backend_views
from shared.console.histogram import Counts, quantile


class BackendRoutes:
    """The handler of the health of the backends."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def list(self, request: Request) -> ASGIApp:
        """GET /v1/backends: each backend of the living workers; for operators only."""
        async with answer_deadline():
            views = await backend_views(self.node.redis)
        return json_response({"backends": [content_of(view) for view in views]})


def content_of(view: BackendView) -> dict[str, Any]:
    """Return a backend as JSON."""
    slots = {"number": view.slots, "held": view.held, "waiting": view.waiting}
    has_limit = bool(view.left or view.limited_s)
    return {
        "name": view.name,
        "state": view.state,
        "since_s": _rounded(view.since_s),
        "retry_s": _rounded(view.retry_s),
        "reason": view.reason or None,
        "in_flight": view.in_flight,
        "slots": slots if view.slots else None,
        "rate_limit": {"left": view.left, "reset_s": view.limited_s} if has_limit else None,
        "first_token_s": _percentiles(view.first_tokens),
        "tokens_per_s": _percentiles(view.rates),
        "calls": view.calls,
        "failures": view.failures,
        "statuses": view.statuses,
    }


def _percentiles(counts: Counts) -> dict[str, float | None]:
    return {f"p{percent}": _rounded(quantile(counts, percent / 100)) for percent in (50, 99)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
