"""Tailrace on a Redis Cluster, as `System` has it on one server."""

from __future__ import annotations

from bench.support.system import System
from tests.support.redis_cluster import RedisCluster


class ClusterSystem(System):
    """A cluster with a worker; API nodes are started as needed. Use `async with`.

    What `System` reads from its server (`newest`, `cancel_all`, `all_ended`) is not there.

    Args:
        masters: their number. They have no replicas.
    """

    def __init__(self, upstream_url: str, masters: int) -> None:
        self.cluster = RedisCluster(masters=masters, aof="everysec")
        super().__init__(upstream_url, redis_url=self.cluster.url)

    @property
    def redis_pids(self) -> dict[str, int]:
        """The processes of the masters."""
        pids = {}
        for n, server in enumerate(self.cluster.servers, 1):
            assert server.process is not None
            pids[f"redis {n}"] = server.process.pid
        return pids

    async def __aenter__(self) -> ClusterSystem:
        try:
            await self.cluster.__aenter__()
            await self.worker.start().ready()
        except BaseException:
            self._close()
            raise
        return self

    def _close(self) -> None:
        super()._close()
        self.cluster.close()
