"""What a run gives back of the slots of its backend when it is over."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.errors import Unavailable
from workers.health.access import BackendAccess, Executable


@dataclass
class FakeGate:
    calls: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def admit(self, run: Any) -> bool:
        if self.error is not None:
            raise self.error
        return True

    async def leave(self, run: Any) -> None:
        self.calls.append("leave")

    def forget(self, run: Any, *, may_be_asking: bool) -> None:
        self.calls.append("forget, but its call" if may_be_asking else "forget")


@dataclass
class FakeRun:
    is_superseded: bool = False
    held_ms: int | None = None
    error: BaseException | None = None
    ticket: Any = field(default_factory=lambda: SimpleNamespace(id="gen_x"))

    async def execute(self) -> None:
        if self.error is not None:
            raise self.error


async def calls_of(run: FakeRun, *, gate_error: Exception | None = None) -> list[str]:
    care = object.__new__(BackendAccess)
    gate = FakeGate(error=gate_error)
    care.gate = cast(Any, gate)
    if run.error is None:
        await care.execute(cast(Executable, run))
    else:
        with pytest.raises(type(run.error)):
            await care.execute(cast(Executable, run))
    return gate.calls


async def test_a_run_that_is_over_gives_its_slot_back() -> None:
    assert await calls_of(FakeRun()) == ["leave"]
    assert await calls_of(FakeRun(error=RuntimeError())) == ["leave"]


async def test_a_run_leaves_the_slot_to_the_worker_that_took_its_generation() -> None:
    """The slot is that of the generation: giving it back would let a further request in."""
    assert await calls_of(FakeRun(is_superseded=True)) == ["forget, but its call"]


async def test_a_second_entry_of_a_running_generation_leaves_the_slot_to_its_holder() -> None:
    assert await calls_of(FakeRun(held_ms=500)) == ["forget"]


async def test_a_run_that_redis_keeps_from_its_begin_keeps_no_slot() -> None:
    """Otherwise this worker would keep the slot for ever, because no run gives it back."""
    assert await calls_of(FakeRun(), gate_error=Unavailable("away")) == ["forget"]


async def test_a_cancelled_run_gives_nothing_back() -> None:
    assert await calls_of(FakeRun(error=asyncio.CancelledError())) == ["forget, but its call"]
