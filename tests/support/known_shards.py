"""A client of a cluster whose masters a test names, without any server: for decisions only."""

from __future__ import annotations

import asyncio
import itertools

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import parse_redis_url
from shared.redis.cluster.client import ClusterClient
from shared.redis.cluster.slots import SLOTS

MASTERS: tuple[HostPort, ...] = (("a", 1), ("b", 1), ("c", 1))

# Clients of one URL share what they know for as long as an event loop lives, and several tests may
# share a loop. So each client gets a user name of its own.
_numbers = itertools.count()


def known_shards(*away: HostPort) -> ClusterClient:
    """Return a client of `MASTERS`, which have equal ranges of slots; some of them are away."""
    url = f"redis+cluster://user{next(_numbers)}:password@a:1,b:1,c:1"
    client = ClusterClient(parse_redis_url(url), answer_s=1.0)
    topology, count = client.topology, len(MASTERS)
    ranges = [
        [n * SLOTS // count, (n + 1) * SLOTS // count - 1, [host.encode(), port, b"id"]]
        for n, (host, port) in enumerate(MASTERS)
    ]
    topology.slot_map.read(ranges, MASTERS[0])
    topology.states.compare(MASTERS, asyncio.get_running_loop().time())
    for address in away:
        topology.states.note_away(address)
    return client
