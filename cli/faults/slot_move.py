"""Moves the slot of one generation in the private cluster, or names the port of its master.

    python -m cli.faults.slot_move owner GENERATION-ID    prints the port
    python -m cli.faults.slot_move move GENERATION-ID     moves the slot, and prints a sentence

The slot moves key by key while its generation is written, as `redis-cli --cluster reshard` does. A
move that is cut off is completed by the next one of the same slot. A process of its own, because
the supervisor holds no connection to Redis.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import redis

from shared.config.redis_url import parse_redis_url
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.redis import keys
from shared.redis.cluster.slots import key_slot

MIGRATE_MS = 5_000
KEYS_AT_ONCE = 100


class Masters:
    """The masters of a cluster, each with a client."""

    def __init__(self, url: str) -> None:
        read = parse_redis_url(url)
        if not read.cluster:
            raise ConfigurationError("the Redis of this Tailrace is no cluster")
        file = read.login.password_file
        self.password = Path(file).read_text() if file else ""
        self.clients = {
            port: redis.Redis(host=host, port=port, password=self.password or None)
            for host, port in read.cluster
        }

    def ask(self, port: int, *words: Any) -> Any:
        return self.clients[port].execute_command(*words)  # type: ignore[no-untyped-call]

    def owner(self, slot: int) -> int:
        """Return the port of the master of a slot."""
        for port in self.clients:
            for first, last, master, *_ in self.ask(port, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return int(master[1])
        raise ConfigurationError(f"no master has the slot {slot} at this moment")

    def name_of(self, port: int) -> str:
        name = self.ask(port, "CLUSTER", "MYID")
        return name.decode() if isinstance(name, bytes) else str(name)

    def move(self, slot: int) -> tuple[int, int]:
        """Move a slot to the master after its owner; return the ports of both."""
        source = self.owner(slot)
        ports = sorted(self.clients)
        target = ports[(ports.index(source) + 1) % len(ports)]
        set_slot = ("CLUSTER", "SETSLOT", slot)
        self.ask(target, *set_slot, "IMPORTING", self.name_of(source))
        self.ask(source, *set_slot, "MIGRATING", self.name_of(target))
        secret = ("AUTH", self.password) if self.password else ()
        while found := self.ask(source, "CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE):
            where = ("127.0.0.1", target, "", 0, MIGRATE_MS)
            self.ask(source, "MIGRATE", *where, *secret, "KEYS", *found)
        for port in (target, *(port for port in ports if port != target)):
            self.ask(port, *set_slot, "NODE", self.name_of(target))
        return source, target


def main() -> int:
    what, generation_id = sys.argv[1:3]
    slot = key_slot(keys.meta(generation_id).encode())
    try:
        masters = Masters(Settings.from_env().named_redis_url())
        if what == "owner":
            print(masters.owner(slot))
            return 0
        began = time.monotonic()
        source, target = masters.move(slot)
    except (redis.RedisError, ConfigurationError) as exc:
        print(f"the slot {slot} was not moved: {exc}", file=sys.stderr)
        return 1
    took_ms = 1000 * (time.monotonic() - began)
    print(f"slot {slot}: moved from port {source} to port {target} in {took_ms:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
