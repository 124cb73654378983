"""Whether this node can do its work: /livez, /readyz, and the figures behind it: /metrics.

/livez says that the process turns; only a supervisor that restarts it should ask. /readyz says that
a prompt sent here would be answered, and names what is missing; a balancer should ask it. Both are
open and show no names and no addresses; /metrics asks for an operator's key once there are keys.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.errors import RETRY_AFTER_S
from api.node import Node
from api.response import json_response
from shared.errors import Unavailable
from shared.queue.lanes import Presence, workers_seen
from shared.redis.client import Client, translated

CHECK_S = 2.0
LEASES_MAX = 3  # a worker that has not renewed for so many leases is not counted on


class HealthRoutes:
    """The handlers of the probes."""

    def __init__(self, node: Node) -> None:
        self.node = node

    async def live(self, request: Request) -> ASGIApp:
        """GET /livez."""
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> ASGIApp:
        """GET /readyz: 200, or 503 with what is missing."""
        checks = await self.checks()
        is_ready = all(checks.values())
        content = {"status": "ready" if is_ready else "not ready", "checks": checks}
        if is_ready:
            return json_response(content)
        return json_response(content, 503, {"retry-after": str(RETRY_AFTER_S)})

    async def metrics(self, request: Request) -> ASGIApp:
        """GET /metrics: for operators, because it shows the work of all owners together."""
        self.node.require_operator(request)
        await self.node.metrics.ask_redis(self.node.redis)
        await self.node.metrics.ask_disk(self.node.files.objects)
        return Response(self.node.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def checks(self) -> dict[str, bool]:
        """Return each condition by name; all must hold."""
        seen = await self._workers()
        oldest_ms = LEASES_MAX * self.node.settings.lease_s * 1000
        return {
            "not_draining": not self.node.is_draining,
            "redis": seen is not None,
            "live_connection": self.node.hub.is_live,
            "worker": any(
                age_ms <= oldest_ms and not presence.draining for presence, age_ms in seen or []
            ),
        }

    async def _workers(self) -> list[tuple[Presence, int]] | None:
        """None: Redis does not answer."""
        try:
            async with asyncio.timeout(CHECK_S):
                return await worker_age_ms(self.node.redis)
        except (Unavailable, TimeoutError):
            return None


async def worker_age_ms(redis: Client) -> list[tuple[Presence, int]]:
    """Return each worker's last word and its age by Redis's clock, which wrote it, too."""
    seen = await workers_seen(redis)
    with translated():
        reply: Any = await redis.time()
    now_ms = reply[0] * 1000 + reply[1] // 1000
    return [(presence, max(0, now_ms - presence.at_ms)) for presence in seen]
