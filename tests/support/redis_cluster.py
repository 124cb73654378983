"""A real cluster of three masters, with replicas on demand; slots can be moved step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis

from shared.config.settings import Settings
from shared.redis.client import Client
from shared.redis.cluster.slot_map import SlotMap
from shared.redis.cluster.slots import key_slot
from shared.redis.cluster.watch import watch_shards
from shared.redis.connections import connect
from shared.redis.shards import shard_count
from tests.support.redis_server import RedisServer, free_ports
from tests.support.wait import until, until_sync

NODE_TIMEOUT_MS = 1_000
SLOTS = 16_384
READY_S = 30.0


class RedisCluster:
    """Use as an async context manager.

    Attributes:
        servers: the masters, then one replica of each if `replicas`.

    Args:
        options: further configuration of each server, as on the command line.
    """

    def __init__(
        self,
        *,
        masters: int = 3,
        replicas: bool = False,
        aof: str = "",
        options: dict[str, str] | None = None,
    ) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": "0",
            **(options or {}),
        }
        self.masters = masters
        self.servers: list[RedisServer] = []
        for _ in range(masters * (2 if replicas else 1)):
            server = RedisServer(tcp=True, aof=aof, options=dict(options))
            # By default the bus has the port 10,000 higher, which may be beyond the last one.
            server.options["cluster-port"] = str(free_ports(1))
            self.servers.append(server)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"redis+cluster://{hosts}"

    async def __aenter__(self) -> RedisCluster:
        try:
            for server in self.servers:
                server.start()
            await self._join()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for server in self.servers:
            server.close()

    async def _join(self) -> None:
        first = self.servers[0]
        for n, server in enumerate(self.servers):
            with server.client() as client:
                if n < self.masters:
                    begin, end = n * SLOTS // self.masters, (n + 1) * SLOTS // self.masters - 1
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
                if n:
                    bus = first.options["cluster-port"]
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, bus)
        await until(lambda: self._all(f"cluster_known_nodes:{len(self.servers)}"), READY_S)
        for n, server in enumerate(self.servers[self.masters :]):
            with server.client() as client:
                client.execute_command("CLUSTER", "REPLICATE", self.id_of(self.servers[n]))
        await until(self.is_well, READY_S, "a cluster that is well")

    def is_well(self) -> bool:
        """Whether each server says so."""
        return self._all("cluster_state:ok")

    def _all(self, line: str) -> bool:
        def has(server: RedisServer) -> bool:
            with server.client() as client:
                raw = client.execute_command("CLUSTER", "INFO")
            if isinstance(raw, dict):  # redis-py has parsed it
                name, _, value = line.partition(":")
                return bool(raw.get(name) == value)
            return line in raw.decode().splitlines()

        return all(has(server) for server in self.servers)

    def id_of(self, server: RedisServer) -> str:
        with server.client() as client:
            return str(client.execute_command("CLUSTER", "MYID").decode())

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """Mark a slot as moving; its keys stay where they are."""
        with target.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        with source.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, keys: list[str], source: RedisServer, target: RedisServer) -> None:
        with source.client() as client:
            client.execute_command(
                *("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
            )

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Give the slot to `target`; it tells the others within a second."""
        name = self.id_of(target)
        for server in [target, *self.servers]:
            try:
                with server.client() as client:
                    client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", name)
            except redis.RedisError:
                pass  # a replica, or a server that is away

    def take_slots(self, server: RedisServer, first: int, last: int) -> None:
        """Leave slots of `server` without a master, in the view of every server."""
        for each in [server, *self.servers]:  # its owner first, which would tell the others
            with each.client() as client, suppress(redis.ResponseError):
                client.execute_command("CLUSTER", "DELSLOTSRANGE", first, last)

    def give_slots(self, server: RedisServer, first: int, last: int) -> None:
        """Give slots that have no master to `server`; it tells the others within a second."""
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)

    def owner(self, key: str) -> RedisServer:
        """Return the master of a key, as the first server that answers sees it."""
        slot_map = SlotMap()
        for server in self.servers:
            if server.process is None or server.is_frozen:
                continue
            with server.client() as client:
                slot_map.read(client.execute_command("CLUSTER", "SLOTS"), ("127.0.0.1", 0))
            master = slot_map.master_of(key_slot(key.encode()))
            if master is not None:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError("no server answers")

    def move(self, key: str, target: RedisServer) -> None:
        """Move the slot of a key with all its keys, as `redis-cli --cluster reshard` does.

        May be repeated after an error, and must be: until then the slot has two masters.
        """
        slot, source = key_slot(key.encode()), self.owner(key)
        if source is not target:
            self.begin_move(slot, source, target)
            self.move_all_keys(slot, source, target)
        self.end_move(slot, target)

    def move_atomically(self, key: str, target: RedisServer) -> bool:
        """Have the server move the slot of a key; False: this server moves slots key by key."""
        slot, source = key_slot(key.encode()), self.owner(key)
        words = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id_of(target))
        with source.client() as client:
            try:
                client.execute_command(*words)
            except redis.ResponseError:
                return False
        until_sync(lambda: self.owner(key) is target, READY_S, "the slot at its new master")
        return True

    def move_all_keys(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        with source.client() as client:
            while found := client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                self.move_keys([name.decode() for name in found], source, target)


@asynccontextmanager
async def watched_client(cluster: RedisCluster) -> AsyncIterator[Client]:
    """Yield a client of the cluster, with the watch over its masters running."""
    settings = Settings(redis_url=cluster.url)
    client = connect(settings)
    watching = asyncio.create_task(watch_shards(settings))
    await until(lambda: shard_count(client) == (3, 3), 20.0, "three shards")
    yield client
    watching.cancel()
    await client.aclose()
