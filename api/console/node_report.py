"""Reports this node every few seconds, and adds points to the history of the last hour.

All nodes compute each point, and Redis takes the first one: so the history goes on whichever node
stops. A report costs Redis six commands in two round trips each five seconds. A point costs two
more, and four for each partition of the queue at one of the nodes, each ten seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Protocol

from api.console.limits import NODE_GENERATIONS_MAX, REPORT_EVERY_S
from api.edge.metrics import Metrics
from api.hub.hub import Hub
from shared.config.settings import Settings
from shared.console.board import (
    NODES_KEPT_MS,
    POINT_S,
    Reading,
    add_point,
    newest_point_ms,
    read_all,
    report_node,
    withdraw_nodes,
)
from shared.console.history import QueueState, point_of, silent_ms_of
from shared.console.reports import NodeReport
from shared.errors import Unavailable
from shared.log.store import Store
from shared.queue.overview import queue_depths
from shared.redis import keys

log = logging.getLogger(__name__)

POINT_MS = POINT_S * 1000


class ReportingNode(Protocol):
    """The part of a node that its report needs."""

    name: str
    store: Store
    hub: Hub
    metrics: Metrics
    settings: Settings
    started_at: int
    is_draining: bool


class NodeReporter:
    """The reports of one node.

    Args:
        clock: seconds, monotonic; measures how long Redis takes to answer.
    """

    def __init__(self, node: ReportingNode, clock: Callable[[], float] = time.perf_counter) -> None:
        self._node = node
        self._clock = clock
        self._before: Reading | None = None  # at the end of the last point
        self._repairs: dict[str, int] = {}  # by generation with a copy

    async def run(self) -> None:
        """Report until cancelled, then withdraw."""
        try:
            while True:
                with suppress(Unavailable):
                    await self.report()
                await asyncio.sleep(REPORT_EVERY_S)
        finally:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(REPORT_EVERY_S):
                    await withdraw_nodes(self._node.store.redis, [self._node.name])

    async def report(self) -> None:
        """Report the node once, and add the point that has become due.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        redis = self._node.store.redis
        asked_s = self._clock()
        reading = await read_all(redis)
        redis_s = self._clock() - asked_s
        await report_node(redis, self._own(reading, redis_s))
        await self._add_point(reading)
        gone = [each.node for each in reading.nodes if _is_gone(each, reading.now_ms)]
        if gone:
            await withdraw_nodes(redis, gone)

    def _own(self, reading: Reading, redis_s: float) -> NodeReport:
        node, statistics = self._node, self._node.hub.statistics()
        happenings = node.hub.counters.happenings
        self._note_repairs()
        return NodeReport(
            node=node.name,
            at_ms=reading.now_ms,
            started_at=node.started_at,
            is_draining=node.is_draining,
            readers=statistics.connections,
            counters={
                "events_delivered": statistics.events_delivered,
                "resumes": statistics.resumes,
                "repairs": statistics.repairs,
                "cuts": statistics.cuts,
                "resets": statistics.resets,
                "rotations": statistics.rotations,
                "reconnects": statistics.reconnects,
            },
            redis_s=redis_s,
            loop_lag_s=node.metrics.take_lag_max(),
            readers_of=self._readers_of() if reading.is_watched else {},
            happened=happenings.newest(),
            happened_count=happenings.count,
        )

    def _note_repairs(self) -> None:
        """Note the generations whose copies were repaired since the last report."""
        relays, before = self._node.hub.relays, self._repairs
        self._repairs = {
            name: relay.feed.repairs for name, relay in relays.items() if relay.feed.repairs
        }
        for name, repairs in self._repairs.items():
            if repairs > before.get(name, 0):
                self._node.hub.counters.happenings.note("repairs", name)

    def _readers_of(self) -> dict[str, int]:
        relays = self._node.hub.relays
        held = ((name, relay.holds) for name, relay in relays.items() if relay.holds)
        return dict(islice(held, NODE_GENERATIONS_MAX))

    async def _add_point(self, reading: Reading) -> None:
        """Add the point whose time is over, unless another node has added it."""
        at_ms = reading.now_ms // POINT_MS * POINT_MS
        before = self._before
        if before is not None and before.now_ms >= at_ms:
            return  # the time of this point is not over yet
        self._before = reading
        if before is None or reading.now_ms - before.now_ms > 3 * POINT_MS:
            return  # Redis was away, or the node has just started: there is nothing to compare with
        redis = self._node.store.redis
        if await newest_point_ms(redis) >= at_ms:
            return
        depths = await queue_depths(self._node.store)
        waiting = sum(depths[priority] for priority in keys.PRIORITIES)
        silent_ms = silent_ms_of(self._node.settings.lease_s)
        state = QueueState(waiting, depths["running"], silent_ms)
        await add_point(redis, point_of(before, reading, at_ms, state))


def _is_gone(report: NodeReport, now_ms: int) -> bool:
    return now_ms - report.at_ms > NODES_KEPT_MS
