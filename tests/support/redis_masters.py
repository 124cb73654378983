"""The Redis of a deployment with TEST_REDIS_MODE=masters: three masters, and a server for arq.

Has the faults of a `RedisServer` (kill, freeze, start, thaw), which hit all masters at once. A
cluster takes seconds to form, so one that is whole is emptied and used again.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import redis.asyncio
from redis.exceptions import RedisError

from shared.config.redis_url import read_redis_url
from shared.redis.cluster.client import ClusterClient
from tests.support.redis_cluster import READY_S, RedisCluster
from tests.support.redis_server import RedisServer
from tests.support.slot_mover import SlotMover
from tests.support.wait import until_sync


class RedisMasters:
    """Give it to `Deployment` (tests/support/processes.py) as its server; `open` it first.

    Args:
        replicas: one of each master; it is promoted when its master is lost.
        cluster: one with options of its own, for this deployment only; not started yet.
        moves_slots: slots move from master to master all the time (tests/support/slot_mover.py).
    """

    def __init__(
        self,
        *,
        replicas: bool = False,
        cluster: RedisCluster | None = None,
        moves_slots: bool = False,
    ) -> None:
        self._moves_slots = moves_slots
        self._is_reusable = not replicas and cluster is None  # with replicas others become masters
        self._new_cluster = cluster or RedisCluster(replicas=replicas, aof="everysec")
        self._jobs = RedisServer(tcp=True)
        self.cluster: RedisCluster
        self._mover: SlotMover | None = None
        self._is_down = False

    async def open(self) -> RedisMasters:
        """Take a cluster that is empty, or form one."""
        self._jobs.start()
        if _idle and self._is_reusable:
            self.cluster = _idle.pop()
        else:
            self.cluster = await self._new_cluster.__aenter__()
        if self._moves_slots:
            self._mover = SlotMover(self.cluster)
            self._mover.start()
        return self

    @contextmanager
    def _while_nothing_moves(self) -> Iterator[None]:
        with self._mover.lock if self._mover else nullcontext():
            yield

    @property
    def url(self) -> str:
        return self.cluster.url

    @property
    def jobs_url(self) -> str:
        return self._jobs.url

    @property
    def process(self) -> object:
        """None: the masters were killed."""
        return None if self._is_down else self.cluster.servers[0].process

    def redis(self) -> redis.asyncio.Redis:
        """A client of all masters; the caller closes it."""
        return ClusterClient(read_redis_url(self.url, "the cluster"), answer_s=5.0)

    def kill(self) -> None:
        """Kill all masters."""
        self._is_down = True
        with self._while_nothing_moves():
            for server in self.cluster.servers:
                server.kill()

    def start(self) -> None:
        """Start the masters again; returns when they are a cluster."""
        for server in self.cluster.servers:
            server.start()
        until_sync(self.cluster.is_well, READY_S, "a cluster that is well")
        self._is_down = False

    def freeze(self) -> None:
        with self._while_nothing_moves():
            for server in self.cluster.servers:
                server.freeze()

    def thaw(self) -> None:
        for server in self.cluster.servers:
            server.thaw()
        until_sync(self.cluster.is_well, READY_S, "a cluster that is well")

    def close(self) -> None:
        """Keep the cluster for the next deployment, if it is whole."""
        self._jobs.close()
        if self._mover is not None:
            self._mover.stop()
        if not self._is_reusable:
            self.cluster.close()
            return
        try:
            for server in self.cluster.servers:
                with server.client() as client:
                    client.flushall()
                    client.script_flush()
            _idle.append(self.cluster)
        except RedisError:
            self.cluster.close()


_idle: list[RedisCluster] = []


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()
