"""The turns of owners on a real server: workers that read, die, repeat a step or know no turns.

No state may have:
    LOST    an accepted prompt that has no entry on the lane and none in a line
    TWICE   a prompt with two entries
    UNFAIR  more unread entries of an owner than one turn may have
    STUCK   an owner with a line and, after a pass of the janitor, no open turn
At the end, reading and advancing delivers each prompt once, and an owner's prompts in order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.config.settings import Settings
from shared.log.store import Store
from shared.queue.entries import Delivery, decode_entry
from shared.queue.lanes import Queue
from shared.queue.turns import REPAIR_ENTRIES, Turn, advance, entering, leave_lines, repair
from shared.redis import keys
from shared.redis.client import Client
from shared.redis.connections import connect
from tests.support.examples import examples
from tests.support.generation import create
from tests.support.redis_server import RedisServer

OWNERS = {"a": 1, "b": 1, "heavy": 3}
LANE = keys.lane("interactive")
FREE_MAX = 5


class Turns(RuleBasedStateMachine):
    server: RedisServer

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)
        config = Settings(redis_url=self.server.url)
        self.redis: Client = connect(config)
        self.store = Store(self.redis, config)
        self.run(self.redis.flushall())
        self.queues = {name: Queue(self.redis, name) for name in ("one", "two")}
        self.run(self.queues["one"].ensure_groups())
        self.owner_of: dict[str, str] = {}
        self.waiting: set[str] = set()  # accepted, neither delivered nor taken out of its line
        self.taken: list[str] = []  # in the order of the reads
        self.unsaid: list[Delivery] = []  # read by workers that have not gone on with the turns
        self.widest = 0  # entries of a turn that the last step may begin: free slots, the janitor
        self.stuck: set[Turn] = set()  # as the janitor found them last
        self.unread: Counter[str] = Counter()  # entries of each owner on the lane, before the step

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self._deliver_the_rest()
            self.run(self.redis.aclose())
            self.loop.close()

    # Steps

    @rule(owner=st.sampled_from(sorted(OWNERS)), count=st.integers(1, 4))
    def accept(self, owner: str, count: int) -> None:
        for _ in range(count):
            generation_id = f"gen_{owner}_{len(self.owner_of):06}"
            self.owner_of[generation_id] = owner
            self.run(create(self.store, generation_id, owner=owner))
            self._enqueue(generation_id)
            self.waiting.add(generation_id)

    @rule(name=st.sampled_from(("one", "two")), count=st.integers(1, 4), dies=st.booleans())
    def read(self, name: str, count: int, dies: bool) -> None:
        """A worker reads entries and goes on with the turns, or dies before, or is an old one."""
        found = self.run(self.queues[name].read("interactive", count))
        self._note(found)
        if dies:
            self.unsaid += found
        else:
            self._advance(found)

    @rule(free=st.integers(0, FREE_MAX))
    def read_with_free_slots(self, free: int) -> None:
        found = self.run(self.queues["one"].read("interactive", 1))
        self._note(found)
        self.widest = free
        self._advance(found, free)

    @precondition(lambda self: self.unsaid)
    @rule()
    def claim(self) -> None:
        """Another worker claims the entries of the dead, and goes on with their turns."""
        self._advance(self.run(self.queues["two"].claim("interactive", 0, 99)))
        self.unsaid.clear()

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def repeat_an_advance(self, data: st.DataObject) -> None:
        """An answer was lost, so a worker repeats its step; it may be long out of date."""
        pending = self.run(self.redis.xpending_range(LANE, keys.GROUP, "-", "+", 99))
        entries = self.run(self.redis.xrange(LANE))
        read = {row["message_id"] for row in pending}
        taken = [Delivery("interactive", i, decode_entry(f[b"e"])) for i, f in entries if i in read]
        if taken:
            self._advance([data.draw(st.sampled_from(taken))])

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        """A prompt ends while it waits: it leaves its line; on the lane its entry stays."""
        generation_id = data.draw(st.sampled_from(sorted(self.waiting)))
        before = len(self._in_lines())
        self.run(leave_lines(self.store, [generation_id], "interactive"))
        if len(self._in_lines()) < before:
            self.waiting.discard(generation_id)

    @rule()
    def sweep(self) -> None:
        self.widest = REPAIR_ENTRIES if self.stuck else 0
        self.stuck = self.run(repair(self.store, keys.QUEUE, self.stuck))
        self.unsaid.clear()
        owners = {
            owner.decode() for owner in self.run(self.redis.hgetall(keys.turns("interactive")))
        }
        lines = {self.owner_of[name] for name in self._in_lines()}
        assert {keys.digest_of(owner) for owner in lines} <= owners, "STUCK"

    # States

    @invariant()
    def nothing_is_lost_or_twice(self) -> None:
        if not hasattr(self, "redis"):
            return
        places = Counter([*self._unread(), *self._in_lines()])
        assert set(places) == self.waiting, "LOST"
        assert all(number == 1 for number in places.values()), "TWICE"

    @invariant()
    def no_owner_has_more_than_a_turn(self) -> None:
        if not hasattr(self, "redis"):
            return
        unread = Counter(self.owner_of[name] for name in self._unread())
        for owner, number in unread.items():
            assert number <= max(OWNERS[owner], self.unread[owner], self.widest), "UNFAIR"
        self.unread, self.widest = unread, 0

    def _deliver_the_rest(self) -> None:
        self.run(repair(self.store, keys.QUEUE))
        while found := self.run(self.queues["one"].read("interactive", 3)):
            self._note(found)
            self._advance(found)
        assert not self.waiting and not self._in_lines(), "LOST"
        assert not self.run(self.redis.hgetall(keys.turns("interactive")))
        assert len(self.taken) == len(set(self.taken)), "TWICE"
        for owner in OWNERS:
            own = [name for name in self.taken if self.owner_of[name] == owner]
            assert own == sorted(own), "the prompts of an owner are out of order"

    # Helpers

    def _enqueue(self, generation_id: str) -> None:
        owner = self.owner_of[generation_id]
        names, entry, rest = entering(
            generation_id, owner=owner, priority="interactive", model="demo",
            tag=keys.QUEUE, weight=OWNERS[owner],
        )  # fmt: skip
        self.run(self.store.scripts.run("enqueue", names, [generation_id, entry, "", *rest]))

    def _note(self, found: Sequence[Delivery]) -> None:
        for delivery in found:
            assert delivery.ticket is not None
            self.taken.append(delivery.ticket.id)
            self.waiting.remove(delivery.ticket.id)

    def _advance(self, taken: Sequence[Delivery], free: int = 0) -> None:
        self.run(advance(self.store.scripts, taken, {"interactive": free}))

    def _unread(self) -> list[str]:
        groups = self.run(self.redis.xinfo_groups(LANE))
        after = b"(" + groups[0]["last-delivered-id"]
        return [_id(fields[b"e"]) for _, fields in self.run(self.redis.xrange(LANE, after))]

    def _in_lines(self) -> list[str]:
        found: list[str] = []
        for owner in OWNERS:
            line = keys.line("interactive", keys.digest_of(owner))
            found += [_id(entry) for entry in self.run(self.redis.zrange(line, 0, -1))]
        return found


def _id(entry: bytes) -> str:
    ticket = decode_entry(entry)
    assert ticket is not None
    return ticket.id


def test_no_prompt_is_lost_or_doubled_and_turns_are_fair(redis_server: RedisServer) -> None:
    machine = type("TurnsHere", (Turns,), {"server": redis_server})
    # An advance that may be repeated is found in 9 to 14, a turn that stays open in 5 to 11.
    number = examples(25, in_ci=60)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=number, stateful_step_count=40)
    )
