"""Plays for `ScriptedBackend` (tests/support/worker_harness.py), and the wait for empty queues."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.errors import BackendError
from shared.log.events import Token
from shared.queue.overview import queue_depths
from shared.queue.partitions import partitions_of
from shared.redis import keys
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, BackendScript, WorkerHarness
from workers.backends.contract import Finish

LONG_S = 60.0  # a lease or drain time that no test waits for


def says(*texts: str) -> BackendScript:
    """A script that yields these texts, whatever the prefix, and finishes."""

    async def backend_script(prefix):
        for text in texts:
            yield [Token(text)]
        yield [Finish("stop")]

    return backend_script


def fails(*texts: str, code: str = "upstream_error", **error: Any) -> BackendScript:
    """A script that yields these texts and raises BackendError; `error` has its other arguments."""

    async def backend_script(prefix):
        for text in texts:
            yield [Token(text)]
        raise BackendError(code, "it broke", **error)

    return backend_script


def says_and_waits(gate: asyncio.Event, before: str, *after: str) -> BackendScript:
    """A script that yields `before`, waits for the gate, yields the rest and finishes."""

    async def backend_script(prefix):
        yield [Token(before)]
        await gate.wait()
        for text in after:
            yield [Token(text)]
        yield [Finish("stop")]

    return backend_script


def breaks_off(*texts: str) -> BackendScript:
    """A script that yields these texts and ends without a Finish."""

    async def backend_script(prefix):
        for text in texts:
            yield [Token(text)]

    return backend_script


async def until_no_read_is_blocked(harness: WorkerHarness) -> None:
    """Wait until Redis holds no blocking read of a worker."""

    async def is_free() -> bool:
        return (await harness.redis.info("clients"))["blocked_clients"] == 0

    await until(is_free, DEADLINE_S, "no blocked read")


async def until_nothing_is_queued(harness: WorkerHarness) -> None:
    """Wait until the lanes have no entries and the indexes of the queue no members."""

    async def is_empty() -> bool:
        tags = partitions_of(harness.settings).tags
        names = [keys.lane(lane, tag) for tag in tags for lane in keys.LANES]
        left = [await harness.redis.xlen(name) for name in names]
        left += [
            await harness.redis.hlen(keys.turns(lane, tag))
            for tag in tags
            for lane in keys.PRIORITIES
        ]
        return not any(left) and not any((await queue_depths(harness.store)).values())

    await until(is_empty, DEADLINE_S, "empty queues and indexes")
