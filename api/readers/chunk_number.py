"""Where chunk number N of a numbered dialect is: the entry, and the rest of that entry's bytes.

A reader that counts says "from chunk N on", at any node, and has nothing else to show for it. Two
logs of one generation may both have a chunk N: Redis lost a tail and another attempt wrote on. So:

    N inside the opening          placed at once: it depends on what was stored at creation alone
    N up to the first jump of the placed. Attempts follow one another by one; only after a loss
    attempts, N not beyond the    does the next one jump, and only what comes after the jump may
    last chunk                    have stood there before with other texts
    N beyond the jump             `stream_reset`, also where nothing was lost: nobody can tell
    N exactly the next            waits for it
    N beyond what there is        of an unfinished log waits up to 2 s, as a cursor does, for the
                                  tail to come back; the holder that restores it writes the same
                                  chunks again, and any other attempt jumps. Then `stream_reset`
    … of an ended log             `stream_reset`

The copy is compared with the log first. Source: docs/protocol.md, "Dialects".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from api.errors import request_error
from api.hub.encoded import EncodedLog
from api.hub.hub import OPEN_S, Hub
from api.hub.position import WAIT_S
from api.hub.relay import Relay
from api.readers.log_waiter import Waiter
from shared.errors import RequestError, Unavailable
from shared.log.fold import Dialect
from shared.log.ids import START, EventId


class Place(NamedTuple):
    """Where a reading begins: `head` is written first, then all that follows the entry `cursor`."""

    cursor: EventId = START
    head: bytes = b""


async def locate(hub: Hub, relay: Relay, dialect: Dialect, number: int) -> Place:
    """Return the place of chunk `number`, by the rules above.

    Raises:
        RequestError: `stream_reset`; Unavailable: the log cannot be read now.
    """
    log = relay.encoded(dialect)
    if number > log.chunks_up_to(0):
        with Waiter(relay, hub.now()) as waiter:
            async with _bound():
                await _fold(relay, log, waiter)
            if number > log.chunks:
                await _await_chunk(relay, log, waiter, number)
            async with _bound():
                return await _find(relay, log, waiter, number)
    if number == log.chunks_up_to(0):
        return Place()
    found = log.find(number)
    assert found is not None  # the opening is always at hand
    return Place(START, found[1])


async def fold_all(hub: Hub, relay: Relay, dialect: Dialect) -> EncodedLog:
    """Return the log in `dialect` with all folded that there is now: `chunks` counts it.

    Raises:
        Unavailable: the log cannot be read now.
    """
    log = relay.encoded(dialect)
    with Waiter(relay, hub.now()) as waiter:
        async with _bound():
            await _fold(relay, log, waiter)
    return log


def stream_reset() -> RequestError:
    return request_error(
        "stream_reset", "after a loss the chunks are numbered anew: read again from 0"
    )


@asynccontextmanager
async def _bound() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(OPEN_S):
            yield
    except TimeoutError:
        raise Unavailable("the log could not be read in time") from None


async def _fold(relay: Relay, log: EncodedLog, waiter: Waiter) -> None:
    """Read what the log has now, and fold it, step by step."""
    if not relay.is_over:
        relay.repair()
    await waiter.until(lambda: relay.feed.is_whole or relay.is_over)
    _check(waiter)
    log.encode()
    while not log.is_complete:
        if log.lacks(log.count):
            relay.refill_soon()
            await waiter.changed()
            _check(waiter)
        else:
            await asyncio.sleep(0)
        log.encode()


async def _await_chunk(relay: Relay, log: EncodedLog, waiter: Waiter, number: int) -> None:
    """Give chunks that a reader has seen, and that are not there, time to come back."""
    try:
        async with asyncio.timeout(WAIT_S):
            while log.chunks < number and not (log.is_finished or relay.is_over):
                await waiter.changed()
                _check(waiter)
                await _fold_changes(log)
    except TimeoutError:
        raise stream_reset() from None


async def _fold_changes(log: EncodedLog) -> None:
    log.encode()
    while not log.is_complete:
        await asyncio.sleep(0)
        log.encode()


async def _find(relay: Relay, log: EncodedLog, waiter: Waiter, number: int) -> Place:
    while number <= log.chunks_up_to(relay.feed.ids.unbroken):
        found = log.find(number)
        if found is not None:
            seq, head = found
            return Place(relay.feed.ids.at(seq), head)
        if relay.feed.base:
            relay.refill_soon()
            await waiter.changed()
            _check(waiter)
        await _fold_changes(log)
    raise stream_reset()


def _check(waiter: Waiter) -> None:
    if waiter.outcome is not None:
        raise Unavailable("the log is gone")
