"""The slot map and the scripts of one cluster, shared by all connections of a process.

The masters of slots are the same for all connections of a process, so these connections share one
map. There is one topology for each event loop and cluster, which `topology_of` returns. The map is
read again when a reply contradicts the map, when a server is lost, or when a slot has no master:
once for all callers that met the same error, and at most once per `READ_PAUSE_S`.

Invariant: no connection stays open here. Each reading opens a connection and closes it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from weakref import WeakKeyDictionary

from redis.exceptions import ResponseError

from shared.config.redis_hosts import HostPort
from shared.config.redis_login import RedisLogin
from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.cluster.shard_states import ShardStates
from shared.redis.cluster.slot_map import SlotMap
from shared.redis.resp import AutoPipeline
from shared.text.addresses import format_authority

SERVER_READ_S = 0.5  # for one server to connect and answer CLUSTER SLOTS
MAP_READ_S = 1.0  # for all servers that are asked in one reading
NODES_ASKED_MAX = 4  # in one reading
READ_PAUSE_S = 0.1  # between two readings
# Between two readings by watch.py while a slot has no master. No reply contradicts such a map,
# because no call goes to the slot. The slot may stay so for hours, until an operator acts.
HOLES_READ_PAUSE_S = 1.0
SINGLE = "cluster support disabled"  # the error of a server without cluster mode


class NoCluster(Unavailable):
    """The servers of the URL answer, and none of them runs in cluster mode."""


class Topology:
    """The slot map of one cluster, and the sources of the scripts that run there.

    Args:
        url: names nodes of the cluster.

    Attributes:
        slot_map: the map as this process knows it.
        states: which masters answer; watch.py keeps it.
        sources: the text of each script, by its digest. A server that lacks one gets it again.
    """

    def __init__(self, url: RedisUrl) -> None:
        assert url.cluster
        self.url = url
        self.slot_map = SlotMap()
        self.states = ShardStates()
        self.sources: dict[str, bytes] = {}
        self._reading = asyncio.Lock()
        self._told: HostPort | None = None  # the server of the last map
        self._read_at_s = float("-inf")

    def url_of(self, address: HostPort) -> RedisUrl:
        """Return the URL of one server: its address, with the login and TLS of the cluster."""
        return self.url._replace(host=address[0], port=address[1], cluster=())

    @property
    def addresses(self) -> set[HostPort]:
        """The masters and the nodes that the URL names."""
        return {*self.slot_map.masters, *self.url.cluster}

    @property
    def has_old_holes(self) -> bool:
        """Whether a slot has no master, and the map was not read for `HOLES_READ_PAUSE_S`."""
        if self.slot_map.is_whole:
            return False
        return asyncio.get_running_loop().time() - self._read_at_s >= HOLES_READ_PAUSE_S

    async def try_to_read(self, version: int) -> None:
        """Read the map if it still has this version. Do nothing if it cannot or need not be read.

        Then the map stays stale, and the next caller tries again.
        """
        if asyncio.get_running_loop().time() - self._read_at_s < READ_PAUSE_S:
            return
        try:
            await self.read(version)
        except Unavailable:
            pass

    async def read(self, version: int) -> None:
        """Read the map, unless another caller has read a newer one than `version` meanwhile.

        Raises:
            NoCluster: the servers are not in cluster mode.
            Unavailable: no server answered.
        """
        async with self._reading:
            if self.slot_map.version > version:
                return
            reasons: list[str] = []
            are_single = True
            end_s = asyncio.get_running_loop().time() + MAP_READ_S
            try:
                for address in self._nodes_to_ask():
                    if reasons and asyncio.get_running_loop().time() > end_s:
                        break
                    try:
                        await self._ask(address)
                    except (Unavailable, TimeoutError, ValueError) as exc:
                        self.slot_map.note_lost(address)
                        are_single = are_single and SINGLE in str(exc)
                        reasons.append(
                            f"{format_authority(*address)}: {exc or 'no answer in time'}"
                        )
                    else:
                        return
            finally:
                self._read_at_s = asyncio.get_running_loop().time()
            kind = NoCluster if are_single else Unavailable
            raise kind("; ".join(["no node of the cluster tells its slots", *reasons]))

    async def _ask(self, address: HostPort) -> None:
        """Take the map from one server.

        Raises:
            Unavailable, TimeoutError, ValueError: the server does not answer with a map.
        """
        async with aclosing(AutoPipeline(self.url_of(address), answer_s=SERVER_READ_S)) as server:
            async with asyncio.timeout(SERVER_READ_S):
                (reply,) = await server.run([["CLUSTER", "SLOTS"]])
        if isinstance(reply, ResponseError):
            raise ValueError(str(reply))
        self.slot_map.read(reply, address)
        self._told = address

    def _nodes_to_ask(self) -> list[HostPort]:
        """Return the servers to ask: the server of the last map first, unreachable servers last.

        If a slot of the last map has no master, its server comes after the other reachable ones: it
        may not know a server that they know.
        """
        slot_map = self.slot_map
        known = [self._told, *slot_map.masters, *self.url.cluster]
        found = [address for address in dict.fromkeys(known) if address is not None]
        doubted = None if slot_map.is_whole else self._told
        found.sort(key=lambda address: (address in slot_map.avoided, address == doubted))
        return found[:NODES_ASKED_MAX]


_Key = tuple[tuple[HostPort, ...], bool, RedisLogin]
_topologies: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Topology]] = (
    WeakKeyDictionary()
)


def topology_of(url: RedisUrl) -> Topology:
    """Return the topology of this URL's cluster on the running event loop."""
    known = _topologies.setdefault(asyncio.get_running_loop(), {})
    key = (url.cluster, url.is_tls, url.login)
    if key not in known:
        known[key] = Topology(url)
    return known[key]
