"""Waiting for a condition, with a deadline, in tests that run real processes.

No test sleeps to wait for an effect: it names the condition and the deadline. A sleep is allowed
only as the length of a fault or of a pause. Pure tests use fake clocks and events and do not need
this module.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.01
# An asynchronous predicate sends a request, which costs the process under test CPU time, too. The
# longer the wait lasts, the longer the pauses: a tenth of it, between these bounds.
REQUEST_POLL_S = 0.05


class DeadlineMissed(AssertionError):
    """What was waited for did not become true in time."""


async def until(
    predicate: Callable[[], T | Awaitable[T]], deadline_s: float, what: str = "the condition"
) -> T:
    """Poll `predicate` until it returns something true, and return that.

    Errors of the predicate count as "not yet"; the last one is named when the deadline is missed.

    Raises:
        DeadlineMissed: `deadline_s` seconds have passed.
    """
    started = time.monotonic()
    deadline = started + deadline_s
    while True:
        problem = ""
        pause_s = POLL_S
        try:
            answer = predicate()
            if inspect.isawaitable(answer):
                pause_s = min(max(POLL_S, (time.monotonic() - started) / 10), REQUEST_POLL_S)
                value = await answer
            else:
                value = answer
            if value:
                return value
            problem = f"last answer {value!r}"
        except (OSError, LookupError, RuntimeError, AssertionError) as exc:
            problem = f"last error {exc!r}"
        if time.monotonic() > deadline:
            raise DeadlineMissed(f"{what}: not within {deadline_s} s; {problem}")
        await asyncio.sleep(pause_s)


def until_sync(predicate: Callable[[], T], deadline_s: float, what: str = "the condition") -> T:
    """As `until`, for code that has no event loop yet."""
    deadline = time.monotonic() + deadline_s
    while True:
        if value := predicate():
            return value
        if time.monotonic() > deadline:
            raise DeadlineMissed(f"{what}: not within {deadline_s} s; last answer {value!r}")
        time.sleep(POLL_S)
