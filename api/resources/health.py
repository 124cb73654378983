"""The probes /livez and /readyz, and /metrics.

/livez says that the event loop of the process runs; it is for a supervisor that restarts the
process. /readyz says whether this node would answer a prompt, and names the conditions that fail;
it is for a load balancer. Both need no credentials, and show no names and no addresses. /metrics
needs an operator's key if keys are configured.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.errors import RETRY_AFTER_S
from api.node import Node
from api.response import json_response
from shared.config.settings import SILENT_LEASES_MAX
from shared.errors import ConfigurationError, Unavailable
from shared.later.lag import BEATS, JobsLag, read_lag
from shared.queue.partitions import agree, partitions_of
from shared.queue.presence import Presence, workers_seen
from shared.redis.client import Client, client_follower, translated
from shared.redis.server_check import check_server
from shared.redis.shards import is_partly_away, shard_count
from shared.text.redaction import redact

READY_CHECK_S = 2.0  # for Redis to answer /readyz; after it the condition `redis` fails
SERVER_CHECK_EVERY_S = 5.0  # until the server has passed once


class HealthRoutes:
    """The handlers of the probes."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._has_passed = False  # `check_server` has passed once
        self._problem = ""  # with which it failed last
        self._checked_at_s = -math.inf

    async def live(self, request: Request) -> ASGIApp:
        """GET /livez."""
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> ASGIApp:
        """GET /readyz: 200 or 503, with each condition; and what works, but is degraded."""
        checks = await self.checks()
        is_ready = all(checks.values())
        content: dict[str, Any] = {"status": "ready" if is_ready else "not ready", "checks": checks}
        degraded = sorted(self.node.authenticator.problems)
        if self.node.limits.problem:
            degraded.append("limits")
        if (shards := shard_count(self.node.redis)) is not None:
            content["shards"] = {"all": shards.shards, "answering": shards.serving}
            if shards.serving < shards.shards:
                degraded.append("shards")
        if lag := await self._jobs_lag():
            content["jobs"] = jobs_content(lag)
            if lag.is_late:
                degraded.append("jobs")
        if degraded:
            content["degraded"] = degraded
            content["status"] = "degraded" if is_ready else content["status"]
        if self._problem:
            content["problems"] = [self._problem]
        if sentinel := await self._sentinel():
            content["sentinel"] = sentinel
        if is_ready:
            return json_response(content)
        return json_response(content, 503, {"retry-after": str(RETRY_AFTER_S)})

    async def metrics(self, request: Request) -> ASGIApp:
        """GET /metrics: for operators only, because the figures include all owners."""
        await self.node.metrics.update_from_redis(
            self.node.redis, partitions_of(self.node.settings)
        )
        await self.node.metrics.update_free_bytes(self.node.files.objects)
        return Response(self.node.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    async def checks(self) -> dict[str, bool]:
        """Return each condition of readiness by name; the node is ready if all are True.

        Of a cluster one shard that answers is enough. If the reports of the workers are on a shard
        that is away, some worker is taken to be there.
        """
        workers = await self._workers()
        is_hidden = workers is None and is_partly_away(self.node.redis)
        age_ms_max = SILENT_LEASES_MAX * self.node.settings.lease_s * 1000
        return {
            "not_draining": not self.node.is_draining,
            "redis": workers is not None or is_hidden,
            "server": await self._is_server_usable(),
            "live_connection": self.node.hub.is_live,
            "worker": is_hidden
            or any(
                age_ms <= age_ms_max and not presence.draining for presence, age_ms in workers or []
            ),
        }

    async def _is_server_usable(self) -> bool:
        """Whether the server of TAILRACE_REDIS_URL passes the check that roles make at start.

        A node may start before Redis, and then nobody has checked it. Without an answer of Redis,
        the condition `redis` fails and not this one.
        """
        now_s = time.monotonic()
        if not self._has_passed and now_s - self._checked_at_s >= SERVER_CHECK_EVERY_S:
            self._checked_at_s = now_s
            try:
                async with asyncio.timeout(READY_CHECK_S):
                    await check_server(self.node.redis)
                    await agree(self.node.redis, self.node.settings)
            except ConfigurationError as exc:
                self._problem = redact(str(exc))
            except (Unavailable, TimeoutError):
                self._checked_at_s = -math.inf
            else:
                self._has_passed, self._problem = True, ""
        return not self._problem

    async def _sentinel(self) -> dict[str, int | None]:
        """Return numbers about the Sentinel service; empty: the URL names the server itself.

        They are numbers only, because this route shows no addresses. `replicas` is None if the
        master does not answer.
        """
        follower = client_follower(self.node.redis)
        if follower is None:
            return {}
        replicas: int | None = None
        try:
            async with asyncio.timeout(READY_CHECK_S):
                with translated():
                    role: Any = await self.node.redis.execute_command("ROLE")  # type: ignore[no-untyped-call]
                replicas = len(role[2])
        except (Unavailable, TimeoutError):
            pass
        sentinels = len(follower.sentinels.hosts)
        return {"sentinels": sentinels, "heard": len(follower.heard), "replicas": replicas}

    async def _jobs_lag(self) -> JobsLag | None:
        """Return the lag of the jobs role; None: Redis does not answer, or refuses."""
        try:
            async with asyncio.timeout(READY_CHECK_S):
                return await read_lag(self.node.redis)
        except (Unavailable, TimeoutError):
            return None

    async def _workers(self) -> list[tuple[Presence, int]] | None:
        """Return the workers as `workers_with_age_ms`; None: Redis does not answer."""
        try:
            async with asyncio.timeout(READY_CHECK_S):
                return await workers_with_age_ms(self.node.redis)
        except (Unavailable, TimeoutError):
            return None


def jobs_content(lag: JobsLag) -> dict[str, Any]:
    """Return the JSON of the lag of the jobs role: numbers only."""
    what, oldest_s = lag.oldest
    return {
        "oldest_due_s": oldest_s,
        "oldest_due": what if oldest_s else None,
        "due_s": dict(lag.due),
        "beat_s": {name: lag.beats.get(name) for name in BEATS},
    }


async def workers_with_age_ms(redis: Client) -> list[tuple[Presence, int]]:
    """Return each worker's last presence and its age in ms, both by Redis's clock.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    seen = await workers_seen(redis)
    with translated():
        reply: Any = await redis.time()
    now_ms = reply[0] * 1000 + reply[1] // 1000
    return [(presence, max(0, now_ms - presence.at_ms)) for presence in seen]
