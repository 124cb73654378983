"""`make soak REDIS=cluster`: the soak on three masters and their replicas.

    python -m tests.soak.cluster [--seconds 60] [--seed N]

As tests/soak/run.py, with the faults of a cluster instead of those of one server: a master is
killed and its replica promoted, a master is frozen until its replica is promoted, the slot of a
running answer moves to another master, at once or slowly. The old master comes back as a replica
before the next of these faults, so that no shard loses both copies.
"""

from __future__ import annotations

import asyncio
import sys

import redis

from shared.redis import keys
from shared.redis.cluster.slots import key_slot
from tests.soak.run import BOUND_S, LEASE_S, Soak, arguments, play
from tests.soak.schedule import Fault
from tests.support.fault_run import FaultRun
from tests.support.processes import Deployment
from tests.support.redis_cluster import RedisCluster
from tests.support.redis_masters import RedisMasters
from tests.support.redis_server import RedisServer
from tests.support.wait import until

# A promoted replica may lack the last writes; `shard kill` and `shard freeze` therefore may lose.
KINDS = {
    "worker kill": 5,
    "worker freeze": 2,
    "worker drain": 2,
    "node kill": 3,
    "node drain": 2,
    "shard kill": 3,
    "shard freeze": 2,
    "shard move": 6,
    "shard move slowly": 3,
    "cut live connections": 2,
    "cut connections": 2,
    "cancel": 3,
}
SLOW_S = 1.0  # between the move of the keys and that of the slot
PROMOTED_S = 30.0


class ClusterSoak(Soak):
    """One run on a cluster."""

    @property
    def _redis(self) -> RedisCluster:
        found: RedisCluster = self.deployment.server.cluster
        return found

    async def _hit_shard(self, what: str, fault: Fault) -> None:
        if what.startswith("move"):
            await self._move(fault, slow_s=SLOW_S if what == "move slowly" else 0.0)
            return
        key = f"any:{fault.target}"
        victim = self._redis.owner(key)
        victim.kill() if what == "kill" else victim.freeze()
        await until(lambda: self._redis.owner(key) is not victim, PROMOTED_S, "a promotion")
        await asyncio.sleep(fault.lasts_s)
        if what == "kill":
            await asyncio.to_thread(victim.start)
        else:
            victim.thaw()
        await until(lambda: self._follows(victim), PROMOTED_S, "the old master as a replica")
        await until(self._redis.is_well, PROMOTED_S, "a cluster that is well")

    def _follows(self, server: RedisServer) -> bool:
        try:
            with server.client() as client:
                return bool(client.info("replication").get("master_link_status") == "up")
        except redis.RedisError:
            return False

    async def _move(self, fault: Fault, *, slow_s: float) -> None:
        """Move the slot of a running answer to another master."""
        playing = self.fault_run.playing
        if not playing:
            return
        key = keys.meta(playing[fault.target % len(playing)].id)
        source = self._redis.owner(key)
        others = {self._redis.owner(f"any:{n}").port: n for n in range(100)}
        others.pop(source.port, None)
        ports = sorted(others)
        target = self._redis.owner(f"any:{others[ports[fault.target % len(ports)]]}")
        slot = key_slot(key.encode())
        self._redis.begin_move(slot, source, target)
        await asyncio.to_thread(self._redis.move_all_keys, slot, source, target)
        await asyncio.sleep(slow_s)
        await asyncio.to_thread(self._redis.move_all_keys, slot, source, target)
        self._redis.end_move(slot, target)


async def soak(seed: int, seconds: float) -> int:
    settings = {"retention_s": "120", "redis_outage_s": "8"}
    masters = await RedisMasters(replicas=True).open()
    try:
        async with Deployment(
            api=2, workers=2, jobs=1, lease_s=LEASE_S, settings=settings, server=masters
        ) as deployment:
            async with FaultRun(deployment, deadline_s=BOUND_S) as fault_run:
                run = ClusterSoak(deployment, fault_run, None, seed)
                return await play(run, seed, seconds, KINDS)
    finally:
        masters.close()


def main() -> None:
    args = arguments(__doc__ or "")
    sys.exit(asyncio.run(soak(args.seed, args.seconds)))


if __name__ == "__main__":
    main()
