"""Plays for `ScriptedBackend` (tests/support/stage.py), and the wait for empty queues."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.errors import BackendError
from shared.log.events import Token
from shared.queue.overview import queue_depths
from shared.queue.partitions import partitions_of
from shared.redis import keys
from tests.support.stage import DEADLINE_S, Play, Stage
from tests.support.wait import until
from workers.backends.contract import Finish

LONG_S = 60.0  # a lease or drain time that no test waits for


def says(*texts: str) -> Play:
    """A play that yields these texts, whatever the prefix, and finishes."""

    async def play(prefix):
        for text in texts:
            yield [Token(text)]
        yield [Finish("stop")]

    return play


def fails(*texts: str, **error: Any) -> Play:
    """A play that yields these texts and raises BackendError; `error` has its arguments."""

    async def play(prefix):
        for text in texts:
            yield [Token(text)]
        raise BackendError(error.pop("code", "upstream_error"), "it broke", **error)

    return play


def says_and_waits(gate: asyncio.Event, before: str, *after: str) -> Play:
    """A play that yields `before`, waits for the gate, yields the rest and finishes."""

    async def play(prefix):
        yield [Token(before)]
        await gate.wait()
        for text in after:
            yield [Token(text)]
        yield [Finish("stop")]

    return play


def breaks_off(*texts: str) -> Play:
    """A play that yields these texts and ends without a Finish."""

    async def play(prefix):
        for text in texts:
            yield [Token(text)]

    return play


async def until_nothing_is_queued(stage: Stage) -> None:
    """Wait until the lanes have no entries and the indexes of the queue no members."""

    async def is_empty() -> bool:
        tags = partitions_of(stage.settings).tags
        names = [keys.lane(lane, tag) for tag in tags for lane in keys.LANES]
        lanes = [await stage.redis.xlen(name) for name in names]
        return not any(lanes) and not any((await queue_depths(stage.store)).values())

    await until(is_empty, DEADLINE_S, "empty queues and indexes")
