"""The live connection to one master of a cluster (api/hub/sharded_live.py)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from api.hub.live_connection import SHARDED, Listener, LiveConnection
from shared.config.redis_hosts import HostPort
from shared.redis.cluster.redirects import WAITING, read_redirection
from shared.redis.cluster.topology import Topology

RECONNECT_PAUSE_S_MAX = 1.0
# Looks without any byte from the server. Looks are counted and not seconds, because after a stall
# of this process many bytes may be waiting to be read.
PING_LOOKS = 4
DEAF_LOOKS = 10


class ShardListener(Protocol):
    """Receives the reports of a shard; api/hub/sharded_live.py says what each call does."""

    def subscribed(self, channel: bytes, address: HostPort) -> None: ...

    def left(self, channel: bytes, address: HostPort) -> None: ...

    def moved(self, slot: int, master: HostPort) -> None: ...

    def refused(self, channels: set[bytes]) -> None: ...

    def doubt(self) -> None: ...


class Shard(LiveConnection):
    """A live connection that stays open when the server refuses a channel.

    Attributes:
        task: runs `run`.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        shard_listener: ShardListener,
        listener: Listener,
        address: HostPort,
        topology: Topology,
    ) -> None:
        super().__init__(
            topology.url_of(address),
            _ShardListener(self, listener),
            commands=SHARDED,
            pause_s_max=RECONNECT_PAUSE_S_MAX,
        )
        self.shard_listener = shard_listener
        self.address = address
        self.confirmed: set[bytes] = set()
        self._seen_bytes = 0
        self._silent_looks = 0

    def stop(self) -> None:
        """Close the connection for good."""
        self.task.cancel()

    def is_deaf(self) -> bool:
        """Take one look: whether the server has sent nothing for `DEAF_LOOKS` looks."""
        if not self.is_connected or self.bytes_received != self._seen_bytes:
            self._seen_bytes, self._silent_looks = self.bytes_received, 0
            return False
        self._silent_looks += 1
        if self._silent_looks == PING_LOOKS:
            self.ping()
        return self._silent_looks >= DEAF_LOOKS

    def note_unsubscribed(self, channel: bytes) -> None:
        self.confirmed.discard(channel)
        self.shard_listener.left(channel, self.address)

    def takes_refusal(self, reason: str) -> bool:
        """Pass a refused SSUBSCRIBE on. False: the refusal concerns the whole connection."""
        word, _, rest = reason.partition(" ")
        if word == "MOVED":
            self.shard_listener.moved(*read_redirection(rest, self.address))
        elif word in WAITING:
            self.shard_listener.refused(self._channels - self.confirmed)
        else:
            return False
        return True


class _ShardListener:
    """Passes messages on as they come, and the state with the name of the shard."""

    def __init__(self, shard: Shard, listener: Listener) -> None:
        self._shard = shard
        self.message = listener.message

    def subscribed(self, channel: bytes) -> None:
        self._shard.confirmed.add(channel)
        self._shard.shard_listener.subscribed(channel, self._shard.address)

    def disconnected(self) -> None:
        self._shard.confirmed.clear()
        self._shard.shard_listener.doubt()
