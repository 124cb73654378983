"""Tells which shards of the Redis behind a client answer.

The answer comes from the state that cluster/watch.py keeps. This module sends no
command. A single server counts as one shard that answers; if it does not answer, its calls raise
`Unavailable`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from shared.config.redis_hosts import HostPort
from shared.redis.client import Client
from shared.redis.cluster.client import cluster_of
from shared.redis.cluster.shard_states import ShardState
from shared.redis.cluster.slots import key_slot
from shared.redis.cluster.topology import Topology


class ShardCount(NamedTuple):
    """How many masters a cluster has, and how many of them answer."""

    shards: int
    serving: int


def serves(redis: Client, *names: str) -> bool:
    """Whether the shards of all these keys answer, as far as this process knows."""
    if (cluster := cluster_of(redis)) is None:
        return True
    topology = cluster.topology
    slot_map = topology.slot_map
    if not slot_map.version:
        return True
    for name in names:
        master = slot_map.master_of(key_slot(name.encode()))
        if master is None or _is_silent(topology, master):
            return False
    return True


def is_partly_away(redis: Client) -> bool:
    """Whether some shards of a cluster do not answer, and others do."""
    if (cluster := cluster_of(redis)) is None:
        return False
    topology = cluster.topology
    masters = topology.slot_map.masters
    silent = sum(_is_silent(topology, master) for master in masters)
    return 0 < silent < len(masters)


def _is_silent(topology: Topology, master: HostPort) -> bool:
    """Whether a master is away, or a call to it was lost a moment ago and none answered since."""
    return topology.states.is_away(master) or master in topology.slot_map.avoided


def shard_of(redis: Client, name: str) -> HostPort | None:
    """Return the master that has this key; None: a single server, or it is not known."""
    if (cluster := cluster_of(redis)) is None:
        return None
    return cluster.topology.slot_map.master_of(key_slot(name.encode()))


def back_since_s(redis: Client, name: str) -> float | None:
    """Return for how long the shard of this key has answered again, s; None: it was never away."""
    if (cluster := cluster_of(redis)) is None:
        return None
    states, master = cluster.topology.states, shard_of(redis, name)
    back_at_s = None if master is None else states.back_at_s(master)
    return None if back_at_s is None else asyncio.get_running_loop().time() - back_at_s


def shard_count(redis: Client) -> ShardCount | None:
    """Return the number of shards; None: a single server, or no map was read yet."""
    states = shard_states(redis)
    serving = sum(not state.is_away for state in states.values())
    return ShardCount(len(states), serving) if states else None


def shard_states(redis: Client) -> dict[HostPort, ShardState]:
    """Return the state of each master; empty: a single server."""
    cluster = cluster_of(redis)
    return {} if cluster is None else dict(cluster.topology.states.by_address)
