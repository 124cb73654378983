"""Asks each master of a cluster again and again whether it answers.

A master that is frozen or cut off leaves its connections open, and each call to it would wait for
its whole time limit. Calls for other shards in the same pipeline would wait as long. So this watch
sends a PING to each master every `PING_EVERY_S`. After `PING_ANSWER_S` without
an answer the shard is away: its calls in flight fail, and further calls fail at once.
While a shard is away the map is read again, until another server has its slots or it is back. While
a slot has no master, the map is read again until it has one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import read_redis_url
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.redis.cluster.topology import Topology, topology_of
from shared.redis.resp import AutoPipeline
from shared.text.addresses import format_authority

log = logging.getLogger(__name__)

PING_EVERY_S = 0.25
PING_ANSWER_S = 1.2  # with it, calls of other shards wait for a silent one at most 1.5 s
# If the timer of a PING fires so much too late, this process stood still, and not the server.
STALL_S = 0.3


async def watch_shards(settings: Settings) -> None:
    """Watch the masters of a cluster URL in the settings, until cancelled.

    Returns at once if there is none.
    """
    if settings.redis_url:
        url = read_redis_url(settings.redis_url, "TAILRACE_REDIS_URL")
        if url.cluster:
            await ShardWatch(topology_of(url)).run()


class ShardWatch:
    """The watch of one process over one cluster."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        topology = self._topology
        changes = -1
        async with asyncio.TaskGroup() as group:
            while True:
                slot_map = topology.slot_map
                if not slot_map.version:
                    await self._read_first()
                elif self._has_reason_to_read():
                    await topology.try_to_read(slot_map.version)
                if slot_map.changes != changes:
                    changes = slot_map.changes
                    self._arrange(group)
                await asyncio.sleep(PING_EVERY_S)

    def _has_reason_to_read(self) -> bool:
        topology = self._topology
        return topology.states.has_away or topology.slot_map.is_stale or topology.has_old_holes

    async def _read_first(self) -> None:
        try:
            await self._topology.read(0)
        except Unavailable:
            pass  # the next round tries again

    def _arrange(self, group: asyncio.TaskGroup) -> None:
        """Watch each master that has a slot, and no other."""
        masters = set(self._topology.slot_map.masters)
        self._topology.states.compare(masters, asyncio.get_running_loop().time())
        for address in self._tasks.keys() - masters:
            self._tasks.pop(address).cancel()
        for address in masters - self._tasks.keys():
            self._tasks[address] = group.create_task(self._watch(address), name="shard watch")

    async def _watch(self, address: HostPort) -> None:
        url = self._topology.url_of(address)
        async with aclosing(AutoPipeline(url, answer_s=PING_ANSWER_S)) as server:
            while True:
                if await self._ping(server, address):
                    await asyncio.sleep(PING_EVERY_S)

    async def _ping(self, server: AutoPipeline, address: HostPort) -> bool:
        """Send one PING and judge. False: this process was stopped meanwhile; no verdict."""
        loop, states = asyncio.get_running_loop(), self._topology.states
        sent_s = loop.time()
        try:
            await server.run([["PING"]])
        except Unavailable as exc:
            if loop.time() - sent_s > PING_ANSWER_S + STALL_S:
                return False
            self._topology.slot_map.note_lost(address)
            if states.note_away(address):
                extra = {"shard": format_authority(*address), "reason": str(exc)}
                log.warning("shard away", extra=extra)
        else:
            now_s = loop.time()
            self._topology.slot_map.note_answer(address)
            if states.note_answer(address, now_s - sent_s, now_s):
                log.warning("shard back", extra={"shard": format_authority(*address)})
        return True
