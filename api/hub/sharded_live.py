"""The live connections of a node to the masters of a cluster: one to each.

A sharded channel lives at the master of its slot. So the channels of a node are spread over one
`LiveConnection` for each master, by the slot map that all connections of the process share. A
channel follows its slot:

    sunsubscribe from the server   the slot has moved: subscribe at the same server again, which
                                   refuses with MOVED; the refusal names the new master
    the map has another master     subscribe at the other master
    the connection is lost, or     read the map, until the slot has a master that answers
    delivers nothing

Each confirmation at the new master is a `subscribed` to the listener, which then reads the events
that were published in between. The listener gets no report of the loss of one connection: only the
channels of that master lose messages, and each of these channels gets its `subscribed`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from api.hub.live_connection import Listener
from api.hub.shard import Shard
from shared.config.redis_hosts import HostPort
from shared.config.redis_url import read_redis_url
from shared.errors import Unavailable
from shared.redis.cluster.slots import key_slot
from shared.redis.cluster.topology import Topology, topology_of

LOOK_S = 0.2  # between two looks at all connections


class ShardedLiveConnection:
    """A `LiveSource` (api/hub/live_connection.py) on a cluster.

    Args:
        url: names nodes of the cluster.
        listener: receives messages and state, on the event loop.
    """

    has_probe = False

    def __init__(self, url: str, listener: Listener) -> None:
        self._url = read_redis_url(url, "TAILRACE_REDIS_URL")
        self._listener = listener
        self._channels: dict[bytes, HostPort | None] = {}  # where each one is subscribed
        self._shards: dict[HostPort, Shard] = {}
        self._changes = -1  # `SlotMap.changes` when the channels were placed
        self._has_doubt = True
        self._retries: set[bytes] = set()  # channels that were refused
        self._wake = asyncio.Event()
        self._reconnects_before = 0  # of connections that are closed
        self._topology: Topology
        self._group: asyncio.TaskGroup

    @property
    def is_connected(self) -> bool:
        """Whether at least one master is connected."""
        return any(shard.is_connected for shard in self._shards.values())

    @property
    def shards(self) -> dict[HostPort, bool]:
        """Whether the connection to each master is up."""
        return {address: shard.is_connected for address, shard in self._shards.items()}

    @property
    def reconnects(self) -> int:
        return self._reconnects_before + sum(each.reconnects for each in self._shards.values())

    def subscribe(self, channel: bytes) -> None:
        """Receive the messages of `channel`, wherever its slot goes, until `unsubscribe`."""
        self._channels[channel] = None
        if self._changes >= 0:
            self._place(channel)

    def unsubscribe(self, channel: bytes) -> None:
        """Receive no more messages of `channel`."""
        self._retries.discard(channel)
        self._leave(channel, self._channels.pop(channel, None))

    def drop(self) -> None:
        """Close all connections; `run` opens them again."""
        for shard in self._shards.values():
            shard.drop()

    async def run(self) -> None:
        """Stay connected to all masters until cancelled.

        Slots that move all the time must not delay the look at the connections.
        """
        self._topology = topology_of(self._url)
        look_at_s = _now_s() + LOOK_S
        async with asyncio.TaskGroup() as self._group:
            while True:
                slot_map = self._topology.slot_map
                if self._has_doubt or not slot_map.version:
                    await self._read_map()
                if slot_map.version and self._changes != slot_map.changes:
                    self._arrange()
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(look_at_s):
                        await self._wake.wait()
                if _now_s() >= look_at_s:
                    self._look()
                    look_at_s = _now_s() + LOOK_S

    async def _read_map(self) -> None:
        self._has_doubt = False
        slot_map = self._topology.slot_map
        if slot_map.version:
            await self._topology.try_to_read(slot_map.version)
            return
        try:
            await self._topology.read(0)
        except Unavailable:
            pass  # each look tries again

    def _arrange(self) -> None:
        """Connect to all masters, and place each channel at the master of its slot."""
        slot_map = self._topology.slot_map
        self._changes = slot_map.changes
        masters = set(slot_map.masters)
        for address in masters - self._shards.keys():
            self._shards[address] = shard = Shard(self, self._listener, address, self._topology)
            shard.task = self._group.create_task(shard.run(), name="live connection")
        for channel in list(self._channels):
            self._place(channel)
        for address in self._shards.keys() - masters:
            shard = self._shards.pop(address)
            self._reconnects_before += shard.reconnects
            shard.stop()
            for channel, present in self._channels.items():
                if present == address:  # the slot has no master; this one may come back
                    self._channels[channel] = None

    def _place(self, channel: bytes) -> None:
        master, present = self._master_of(channel), self._channels[channel]
        if master == present or master not in self._shards:
            return
        self._leave(channel, present)
        self._channels[channel] = master
        self._shards[master].subscribe(channel)

    def _leave(self, channel: bytes, address: HostPort | None) -> None:
        if address is not None and (shard := self._shards.get(address)) is not None:
            shard.unsubscribe(channel)

    def _master_of(self, channel: bytes) -> HostPort | None:
        return self._topology.slot_map.master_of(key_slot(channel))

    def _look(self) -> None:
        """Try refused channels again; check that each connection is up and not deaf."""
        retries, self._retries = self._retries, set()
        for channel in retries:
            if (address := self._channels.get(channel)) in self._shards:
                self._shards[address].subscribe(channel)
        for shard in self._shards.values():
            if shard.is_deaf():
                self._topology.slot_map.note_lost(shard.address)
                shard.drop()
            if not shard.is_connected:
                self._has_doubt = True

    # The reports of a shard

    def subscribed(self, channel: bytes, address: HostPort) -> None:
        if self._channels.get(channel) == address:
            self._listener.subscribed(channel)

    def doubt(self) -> None:
        """Read the map, and look where the channels belong."""
        self._has_doubt = True
        self._wake.set()

    def moved(self, slot: int, master: HostPort) -> None:
        """Note a MOVED reply: another server has the slot."""
        self._topology.slot_map.note_moved(slot, master)
        self._wake.set()

    def refused(self, channels: set[bytes]) -> None:
        """Note that a server cannot serve the slot of one of these channels now."""
        self._retries |= channels
        self._has_doubt = True

    def left(self, channel: bytes, address: HostPort) -> None:
        """Take the notice of a server that `channel` is subscribed no more."""
        if self._channels.get(channel) == address:
            self._shards[address].subscribe(channel)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
