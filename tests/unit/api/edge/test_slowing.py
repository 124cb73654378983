"""How long a refusal waits, and what is kept of whom."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import api.edge.slowing
from api.edge.slowing import ADDRESSES_MAX, FREE, LONGEST_S, WINDOW_S, Failures, Slowing
from api.transport.peer import Peers

HERE, THERE = "203.0.113.7", "198.51.100.1"


def test_some_failures_cost_nothing_and_then_each_one_waits_longer() -> None:
    failures = Failures()
    pauses = [failures.pause_s(HERE, 0.0) for _ in range(FREE + 7)]

    assert pauses[:FREE] == [0.0] * FREE
    assert pauses[FREE:] == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_S, LONGEST_S]


def test_another_address_does_not_pay() -> None:
    failures = Failures()
    for _ in range(100):
        failures.pause_s(HERE, 0.0)

    assert failures.pause_s(THERE, 0.0) == 0


def test_time_makes_up_for_failures() -> None:
    failures = Failures()
    for _ in range(1_000):
        failures.pause_s(HERE, 0.0)

    assert failures.pause_s(HERE, 1.0) == LONGEST_S
    assert failures.pause_s(HERE, 2 * WINDOW_S) == 0


def test_who_fails_as_often_as_is_free_never_waits() -> None:
    failures = Failures()

    assert not any(failures.pause_s(HERE, n * WINDOW_S / FREE) for n in range(200))


def test_so_many_addresses_are_remembered_and_the_longest_silent_is_forgotten() -> None:
    failures = Failures()
    for _ in range(FREE):
        failures.pause_s(HERE, 0.0)
    for n in range(ADDRESSES_MAX - 1):
        failures.pause_s(f"10.0.{n >> 8}.{n & 255}", 0.0)
    assert failures.pause_s(HERE, 0.0) > 0

    for n in range(ADDRESSES_MAX):
        failures.pause_s(f"10.1.{n >> 8}.{n & 255}", 0.0)
    assert len(failures) == ADDRESSES_MAX
    assert failures.pause_s(HERE, 0.0) == 0


def scope(host: str, **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"client": (host, 4711), "headers": named}


async def test_so_many_answers_wait_at_once_and_the_others_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api.edge.slowing, "WAITING_MAX", 2)
    slowing = Slowing(Peers())
    for _ in range(FREE + 1):  # the clock runs, and a little is made up for
        await slowing.hold_back(scope(HERE))
    held = [asyncio.ensure_future(slowing.hold_back(scope(HERE))) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [task.done() for task in held] == [False, False, True, True, True]
    await asyncio.gather(*held)


async def test_behind_a_proxy_each_address_has_failures_of_its_own() -> None:
    slowing = Slowing(Peers.read("10.0.0.1"))
    async with asyncio.timeout(api.edge.slowing.FIRST_S / 2):
        for n in range(10 * FREE):
            await slowing.hold_back(scope("10.0.0.1", x_forwarded_for=f"203.0.113.{n}"))
