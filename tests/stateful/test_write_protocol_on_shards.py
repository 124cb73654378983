"""The write protocol on two masters of a cluster: slots that move, shards that fail over.

The steps of workers and the invariants are those of tests/stateful/test_write_protocol.py. Here the
slot of the generation also moves between the masters, by MIGRATE, as often as the machine likes.
A failover gives the slot's master any earlier state that this master ever had, with another history
of its own: a replica may lag behind by more than one stay of the slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared.config.settings import Settings
from shared.log.store import Store
from shared.queue.endings import CANCELLED
from shared.redis import keys
from shared.redis.cluster.slots import key_slot
from tests.stateful.test_write_protocol import (
    EXPIRED_AT_ONCE_S,
    GENERATION,
    Snapshot,
    WriteProtocol,
)
from tests.support.redis_cluster import RedisCluster
from tests.support.wait import until_sync
from workers.writing.outbox import Outbox

SLOT = key_slot(keys.meta(GENERATION).encode())
CONFIG = Settings(redis_url="redis://test", lease_s=EXPIRED_AT_ONCE_S, attempts_max=1_000_000)
MOVES_MAX = 6
CLOCK_MS = 1_000_000_000_000  # attempts above this are times
LOSSES_MAX = 3


class ShardClient(Redis):
    """A client of one master, without redirections: the machine says where the slot is."""

    is_sharded = True


class Shards(WriteProtocol):
    """Attributes:
    states: of each master, the states of the generation there, oldest first.
    """

    cluster: RedisCluster
    lose_tail = None  # type: ignore[assignment]
    lose_everything = None  # type: ignore[assignment]

    def connect(self) -> None:
        self.clients: list[Redis] = [
            ShardClient.from_url(server.url, protocol=2) for server in self.cluster.servers
        ]
        self.states: list[list[Snapshot]] = [[Snapshot({}, [])] for _ in self.clients]
        self.moves = 0
        for client in self.clients:
            self.run(client.flushall())
        self.at = self._owner()
        self._use()

    def _owner(self) -> int:
        """Return where the slot is; an earlier example may have moved it."""
        for n, client in enumerate(self.clients):
            try:
                self.run(client.exists(keys.meta(GENERATION)))
            except ResponseError:  # MOVED
                continue
            return n
        raise AssertionError("no master has the slot")

    def _has_one_epoch(self) -> bool:
        """Whether both masters know the epoch of the last move."""
        infos = [self.run(client.execute_command("CLUSTER INFO")) for client in self.clients]
        return len({info["cluster_current_epoch"] for info in infos}) == 1

    def _use(self) -> None:
        self.redis = self.clients[self.at]
        self.store = Store(self.redis, CONFIG)

    def outbox(self, name: str) -> Outbox:
        outbox = self.writers[name].outbox
        assert outbox is not None
        return outbox

    def _cancel(self, name: str) -> None:
        self.run(self.store.close(GENERATION, CANCELLED))
        self.look()

    @precondition(lambda self: self.moves < MOVES_MAX)
    @rule()
    def move_slot(self) -> None:
        self.moves += 1
        source, target = (self.cluster.servers[n] for n in (self.at, 1 - self.at))
        self.cluster.begin_move(SLOT, source, target)
        self.cluster.move_keys([keys.meta(GENERATION), keys.log(GENERATION)], source, target)
        self.cluster.end_move(SLOT, target)
        until_sync(self._has_one_epoch, 10.0, "both masters know the new epoch")
        self.states[self.at].append(Snapshot({}, []))
        self.at = 1 - self.at
        self._use()
        self.look()

    @precondition(lambda self: len(self.seen) > 1 and self.losses < LOSSES_MAX)
    @rule(steps=st.integers(1, 8))
    def fail_over(self, steps: int) -> None:
        self.losses += 1
        states = self.states[self.at]
        back_to = max(0, len(states) - 1 - steps)
        self.run(self._restore_state(states[back_to]))
        self.look()

    def look(self) -> None:
        super().look()
        states = self.states[self.at]
        if states[-1] != self.snapshots[-1]:
            states.append(self.snapshots[-1])

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            for client in self.clients:
                self.run(client.aclose())
            self.loop.close()


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[RedisCluster]:
    # No master takes the other one for lost while the machine keeps this process busy.
    options = {"enable-debug-command": "yes", "cluster-node-timeout": "600000"}
    async with RedisCluster(masters=2, options=options) as cluster:
        Shards.cluster = cluster
        yield cluster


async def test_write_protocol_survives_moved_slots_and_failovers(cluster: RedisCluster) -> None:
    await asyncio.to_thread(
        run_state_machine_as_test,
        Shards,
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None),
    )


async def test_an_attempt_that_another_shard_has_forgotten_is_not_given_again(
    cluster: RedisCluster,
) -> None:
    """The slot returns with a state of its first stay at the other master."""

    def steps() -> None:
        machine = Shards()
        try:
            machine.create()
            machine.begin("A", pushes_lease=False, writes_start=True)
            machine.write("A", "answered")
            machine.move_slot()
            machine.move_slot()
            machine._release("A")
            machine.begin("B", pushes_lease=False, writes_start=True)
            machine.write("B", "answered")
            machine._release("B")
            machine.move_slot()
            machine.fail_over(steps=2)
            machine.move_slot()
            machine.begin("A", pushes_lease=False, writes_start=True)
            machine.write("A", "answered")
        finally:
            machine.teardown()

    await asyncio.to_thread(steps)


async def test_a_moved_generation_is_taken_over_with_a_higher_attempt_and_its_whole_log(
    cluster: RedisCluster,
) -> None:
    def steps() -> None:
        machine = Shards()
        try:
            machine.create()
            machine.begin("A", pushes_lease=False, writes_start=True)
            machine.write("A", "answered")
            machine.move_slot()
            machine.write("A", "answered")
            assert machine.outbox("A").stopped is None, "the holder writes on"
            assert machine.outbox("A").attempt == 1
            machine._release("A")
            machine.begin("B", pushes_lease=False, writes_start=True)
            assert machine.outbox("B").attempt > CLOCK_MS, "no number of this shard is known"
            assert machine.outbox("B").log[-1][0].seq == 4
            machine._release("B")
            machine.begin("A", pushes_lease=False, writes_start=True)
            assert machine.outbox("A").attempt == machine.outbox("B").attempt + 1, "one jump"
        finally:
            machine.teardown()

    await asyncio.to_thread(steps)
