"""The delay of refusals, and the bounds on remembered addresses and delayed answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import api.edge.slowing
from api.edge.slowing import (
    ADDRESSES_MAX,
    DELAY_S_MAX,
    FREE_FAILURES,
    FREE_FAILURES_WINDOW_S,
    FailureCounter,
    FailureDelay,
)
from api.transport.peer import TrustedProxies

HERE, THERE = "203.0.113.7", "198.51.100.1"


def test_after_the_free_failures_each_delay_is_longer() -> None:
    failures = FailureCounter()
    delays = [failures.add(HERE, 0.0) for _ in range(FREE_FAILURES + 7)]

    assert delays[:FREE_FAILURES] == [0.0] * FREE_FAILURES
    assert delays[FREE_FAILURES:] == [0.1, 0.2, 0.4, 0.8, 1.6, DELAY_S_MAX, DELAY_S_MAX]


def test_another_address_has_no_delay() -> None:
    failures = FailureCounter()
    for _ in range(100):
        failures.add(HERE, 0.0)

    assert failures.add(THERE, 0.0) == 0


def test_failures_leak_out_with_time() -> None:
    failures = FailureCounter()
    for _ in range(1_000):
        failures.add(HERE, 0.0)

    assert failures.add(HERE, 1.0) == DELAY_S_MAX
    assert failures.add(HERE, 2 * FREE_FAILURES_WINDOW_S) == 0


def test_failures_at_the_free_rate_are_never_delayed() -> None:
    failures = FailureCounter()

    assert not any(
        failures.add(HERE, n * FREE_FAILURES_WINDOW_S / FREE_FAILURES) for n in range(200)
    )


def test_beyond_addresses_max_the_oldest_address_is_forgotten() -> None:
    failures = FailureCounter()
    for _ in range(FREE_FAILURES):
        failures.add(HERE, 0.0)
    for n in range(ADDRESSES_MAX - 1):
        failures.add(f"10.0.{n >> 8}.{n & 255}", 0.0)
    assert failures.add(HERE, 0.0) > 0

    for n in range(ADDRESSES_MAX):
        failures.add(f"10.1.{n >> 8}.{n & 255}", 0.0)
    assert len(failures) == ADDRESSES_MAX
    assert failures.add(HERE, 0.0) == 0


def scope(host: str, **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"client": (host, 4711), "headers": named}


async def test_beyond_delayed_max_answers_are_not_delayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api.edge.slowing, "DELAYED_MAX", 2)
    slowing = FailureDelay(TrustedProxies())
    for _ in range(FREE_FAILURES + 1):  # the clock runs, and a little leaks out
        await slowing.hold_back(scope(HERE))
    held = [asyncio.ensure_future(slowing.hold_back(scope(HERE))) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert [task.done() for task in held] == [False, False, True, True, True]
    await asyncio.gather(*held)


async def test_behind_a_proxy_each_client_address_is_counted_alone() -> None:
    slowing = FailureDelay(TrustedProxies.read("10.0.0.1"))
    async with asyncio.timeout(api.edge.slowing.FIRST_DELAY_S / 2):
        for n in range(10 * FREE_FAILURES):
            await slowing.hold_back(scope("10.0.0.1", x_forwarded_for=f"203.0.113.{n}"))
