"""The gate of one worker, when a part of Redis does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from shared.backends.slots import NO_WAITER, Granted, Waiter
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.queue.entries import Delivery, LaneEntry
from shared.queue.lanes import Queue
from tests.support.wait import until
from workers.health import gate as gate_module
from workers.health.gate import Gate
from workers.health.health import BackendHealth

TICKET = LaneEntry(1, "gen_waiting", "interactive", "a")


async def answer(fault: str) -> None:
    """Answer as a shard that is well, `away` or `silent`."""
    if fault == "silent":
        await asyncio.get_running_loop().create_future()
    if fault:
        raise Unavailable("the shard is away")


class Announcing:
    """Stands for `announce_slotted`."""

    def __init__(self) -> None:
        self.fault = ""
        self.calls = 0

    async def __call__(self, *args: Any) -> None:
        self.calls += 1
        await answer(self.fault)


class FakeSlots:
    """The slots of one backend, whose shard may have a fault."""

    def __init__(self) -> None:
        self.fault = ""
        self.kept: list[list[str]] = []
        self.granted: list[bytes] = []
        self.released: list[str] = []
        self.has_slot = True

    async def call(
        self, waiter: Waiter = NO_WAITER, *, released: Sequence[str] = (), kept: Sequence[str] = ()
    ) -> Granted:
        await answer(self.fault)
        self.kept.append(list(kept))
        self.released += released
        return Granted(has_slot=self.has_slot, entries=self.granted)


class FakeQueue:
    """A queue to which entries cannot be given while it is away."""

    scripts: Any = None
    redis: Any = None
    pipeline: Any = None

    def __init__(self) -> None:
        self.is_away = False
        self.tickets: list[LaneEntry] = []

    async def put_back(self, tickets: Sequence[LaneEntry]) -> None:
        if self.is_away:
            raise Unavailable("the shard is away")
        self.tickets += tickets


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


@pytest.fixture
def gate(queue) -> Gate:
    """A gate whose generation `gen_x` has a slot of both of its backends."""
    models = {name: Model(name=name, slots=1) for name in "ab"}
    models["free"] = Model(name="free")
    gate = Gate(BackendHealth(models), cast(Queue, queue), models, Settings(lease_s=0.06))
    gate._slots = cast(Any, {name: FakeSlots() for name in "ab"})
    gate._held = {"gen_x": {"a", "b"}}
    return gate


def slots_of(gate: Gate, backend: str) -> FakeSlots:
    return cast(FakeSlots, gate._slots[backend])


@pytest.fixture
async def keeping(gate) -> AsyncIterator[Callable[[str], Awaitable[object]]]:
    """What runs the gate, and waits until it has kept the slots of a backend twice."""
    running: list[asyncio.Task[None]] = []

    def kept(backend: str) -> Awaitable[object]:
        if not running:
            running.append(asyncio.create_task(gate.run()))
        calls = slots_of(gate, backend).kept
        before = len(calls)
        return until(lambda: len(calls) > before + 1, 5.0, "slots that are kept twice")

    yield kept
    for task in running:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def announcing(monkeypatch) -> Announcing:
    found = Announcing()
    monkeypatch.setattr(gate_module, "announce_slotted", found)
    return found


@pytest.mark.parametrize("fault", ["away", "silent"])
async def test_a_backend_whose_slots_are_away_does_not_cost_the_slots_of_others(
    announcing, gate, keeping, fault
):
    slots_of(gate, "a").fault = fault
    await keeping("b")
    assert slots_of(gate, "b").kept[-1] == ["gen_x"]


async def test_entries_that_cannot_be_put_back_do_not_cost_the_slots_of_others(
    announcing, gate, queue, keeping
):
    slots_of(gate, "a").granted = [msgspec.json.encode(TICKET)]
    queue.is_away = True
    await keeping("b")
    assert await gate.take("a", "gen_y")
    await keeping("a")
    assert slots_of(gate, "a").kept[-1] == ["gen_x", "gen_y"]


@pytest.mark.parametrize("fault", ["away", "silent"])
async def test_an_announcement_that_fails_does_not_cost_the_slots(announcing, keeping, fault):
    announcing.fault = fault
    await keeping("b")
    assert announcing.calls


class Lines:
    """A pipeline that reads the places in the lines of backends; it may be away."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.reads = 0

    async def run(self, commands: Sequence[Any]) -> list[Any]:
        self.reads += 1
        if self.is_away:
            raise Unavailable("the shard is away")
        return [b"1" for _ in commands]


def run_on(*backends: str, lane: str = "resume", is_claimed: bool = False) -> Any:
    route = SimpleNamespace(name="m", route=SimpleNamespace(backends=backends))
    delivery = Delivery(lane, b"1-1", TICKET, is_claimed)
    return SimpleNamespace(model=route, ticket=TICKET, delivery=delivery, is_giving_back=False)


async def test_a_run_that_has_a_slot_begins_although_a_line_of_its_route_is_away(gate, queue):
    queue.pipeline = Lines()
    slots_of(gate, "b").fault = "away"
    await gate._leave_lines(run_on("a", "b"), but="a")


@pytest.mark.parametrize("backends", [("free", "b"), ("a", "b")])
async def test_a_run_begins_although_the_places_in_lines_cannot_be_read(gate, queue, backends):
    queue.pipeline = Lines(is_away=True)
    run = run_on(*backends)
    gate._held = {TICKET.id: {"a"}}
    if backends[0] == "free":
        assert await gate.admit(run)
    else:
        assert await gate._take_one(run, backends)
    assert queue.pipeline.reads


async def test_only_a_run_that_may_have_waited_looks_at_the_lines(gate, queue):
    queue.pipeline = lines = Lines()
    assert await gate.admit(run_on("free", "b", lane="interactive"))
    assert await gate._take_one(run_on("a", "b", lane="batch"), "ab")
    assert lines.reads == 0

    assert await gate.admit(run_on("free", "b", lane="interactive", is_claimed=True))
    assert await gate._take_one(run_on("a", "b"), "ab")
    assert lines.reads == 2


async def test_a_new_run_that_gets_a_slot_leaves_the_lines_that_it_has_just_entered(gate, queue):
    queue.pipeline = Lines()
    slots_of(gate, "a").has_slot = False

    assert await gate._enter_lines(run_on("a", "b", lane="interactive"), "ab")

    assert slots_of(gate, "a").released == [TICKET.id]


@pytest.mark.parametrize("may_be_asking", [False, True])
def test_a_run_that_is_forgotten_returns_a_trial_that_it_cannot_have_used(
    gate, monkeypatch, may_be_asking
):
    returned: list[tuple[str, ...]] = []
    monkeypatch.setattr(gate._health, "return_trial", lambda *names: returned.append(names))
    gate._trials = {TICKET.id: "a"}

    gate.forget(run_on("a"), may_be_asking=may_be_asking)

    assert returned == ([] if may_be_asking else [("a", TICKET.id)])
    assert not gate._trials
