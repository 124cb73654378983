"""An acceptance tells the hub before the log exists, takes it back on failure, and is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from api.edge.metrics import Metrics
from api.intake.acceptance import Acceptance
from shared.config.credentials import Identity
from shared.config.limits import OwnerLimits
from shared.errors import NotFound, Unavailable
from shared.log.ids import new_generation_id
from shared.log.records import Meta
from shared.queue.accept import Accepted, NewGeneration

WHO = Identity("ann")
PROMPT = NewGeneration(owner="ann", model="demo", request=b"{}")
WITH_KEY = NewGeneration(owner="ann", model="demo", request=b"{}", idempotency_key="k")


class FakeHub:
    """Records what it is told, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def expect_creation(self, meta: Meta) -> None:
        self.calls.append(("expect_creation", meta.generation_id))

    def cancel_expected(self, generation_id: str) -> None:
        self.calls.append(("cancel_expected", generation_id))


class FakeStore:
    """Has lost its connection `losses` times, and finds the generation if `is_there`."""

    def __init__(self) -> None:
        self.losses = 0
        self.is_there = True
        self.reads = 0
        self.scripts = SimpleNamespace(pipeline=self)

    async def meta(self, generation_id: str) -> object | None:
        self.reads += 1
        return object() if self.is_there else None


class FakeAcceptor:
    """Accepts every prompt after `turns` turns of the loop, or raises `error`."""

    def __init__(self, *, turns: int = 3, error: Exception | None = None, is_new: bool = True):
        self.store = FakeStore()
        self.on_accept: Callable[[], None] = lambda: None
        self.turns = turns
        self.error = error
        self.is_new = is_new
        self.status = "queued"
        self.ids: list[str] = []

    def draw_id(self) -> str:
        return new_generation_id()

    async def accept(self, new: NewGeneration, generation_id: str = "") -> Accepted:
        self.ids.append(generation_id)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.on_accept()
        if self.error is not None:
            raise self.error
        return Accepted(generation_id, self.is_new, 1, self.status)


def build(acceptor: Any) -> tuple[Acceptance, FakeHub, Callable[[], float]]:
    """Return an acceptance, its hub, and a function that returns the number of counted prompts."""
    hub, metrics = FakeHub(), Metrics()
    acceptance = Acceptance(
        acceptor,
        hub,
        limits_of=lambda identity: OwnerLimits(),
        accepted=metrics.accepted,
        refused=metrics.limit_refusals,
        accept_seconds=metrics.accept_seconds,
    )
    registry: CollectorRegistry = metrics.registry
    name, labels = "tailrace_generations_accepted_total", {"priority": "interactive"}
    return acceptance, hub, lambda: registry.get_sample_value(name, labels) or 0.0


async def test_the_hub_expects_a_generation_that_is_read_at_once() -> None:
    acceptor = FakeAcceptor()
    acceptance, hub, count = build(acceptor)
    accepted = await acceptance.accept(PROMPT, WHO, is_read=True)

    assert hub.calls == [("expect_creation", accepted.generation_id)]
    assert acceptor.ids == [accepted.generation_id]
    assert count() == 1


@pytest.mark.parametrize(("new", "is_read"), [(PROMPT, False), (WITH_KEY, True)])
async def test_the_hub_expects_no_generation_that_is_not_read_or_may_be_a_repeat(
    new: NewGeneration, is_read: bool
) -> None:
    acceptance, hub, _ = build(FakeAcceptor())
    await acceptance.accept(new, WHO, is_read=is_read)

    assert hub.calls == []


@pytest.mark.parametrize("turns", [0, 3])
async def test_after_a_failure_the_hub_expects_the_generation_no_more(turns: int) -> None:
    """Also where the failure comes before the hub was told."""
    acceptor = FakeAcceptor(turns=turns, error=Unavailable("away"))
    acceptance, hub, count = build(acceptor)
    with pytest.raises(Unavailable):
        await acceptance.accept(PROMPT, WHO, is_read=True)
    await asyncio.sleep(0)

    assert hub.calls[-1] == ("cancel_expected", acceptor.ids[0])
    assert count() == 0


async def test_a_repeat_is_not_counted() -> None:
    acceptance, _, count = build(FakeAcceptor(is_new=False))
    await acceptance.accept(WITH_KEY, WHO, is_read=True)

    assert count() == 0


async def test_a_repeat_of_a_deleted_generation_is_not_found() -> None:
    acceptor = FakeAcceptor(is_new=False)
    acceptor.status = "sealed"
    acceptance, _, counted = build(acceptor)
    with pytest.raises(NotFound):
        await acceptance.accept(WITH_KEY, WHO, is_read=False)
    assert counted() == 0


async def test_a_prompt_that_only_a_former_master_has_is_not_said_to_be_accepted() -> None:
    acceptor = FakeAcceptor()
    acceptance, hub, count = build(acceptor)

    def switch() -> None:
        acceptor.store.losses += 1
        acceptor.store.is_there = False

    acceptor.on_accept = switch
    with pytest.raises(Unavailable):
        await acceptance.accept(PROMPT, WHO, is_read=True)

    assert hub.calls[-1] == ("cancel_expected", acceptor.ids[0])
    assert count() == 0


async def test_a_prompt_that_the_new_master_has_is_accepted() -> None:
    acceptor = FakeAcceptor()
    acceptance, _, count = build(acceptor)
    acceptor.on_accept = lambda: setattr(acceptor.store, "losses", 1)

    await acceptance.accept(PROMPT, WHO, is_read=True)
    await acceptance.accept(PROMPT, WHO, is_read=True)

    assert acceptor.store.reads == 1, "only where the connection was lost meanwhile"
    assert count() == 2
