"""Finds chunk number N of a numbered dialect: the entry, and the rest of that entry's bytes.

A client that counts chunks asks any node for "chunk N and later", and sends no event id. After a
loss two logs of one generation may each have a chunk N: Redis lost the tail, and another attempt
wrote other entries. Attempt numbers normally rise by one; after a loss the next attempt number
jumps. Only chunks after a jump may have had another text before. So:

    N is in the opening              placed at once: the opening depends only on data that was
                                     stored at creation
    N is before the first jump of    placed
    the attempt number, and exists
    N is after that jump             `stream_reset`, even if nothing was lost: the node cannot tell
    N is the next chunk to come      placed after the last entry
    N is later than that, and the    waits up to 2 s for a lost tail, as a cursor does. A holder
    log is unfinished                that restores the tail writes the same chunks again; any other
                                     attempt jumps. After 2 s: `stream_reset`
    N is later than that, and the    `stream_reset`
    log has ended

The node compares its copy with the log before it uses these rules.
Source: docs/protocol.md, "Dialects".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from api.errors import request_error
from api.hub.encoded import EncodedLog
from api.hub.hub import LOG_READ_S, Hub
from api.hub.position import CURSOR_WAIT_S
from api.hub.relay import Relay
from api.readers.log_waiter import Waiter
from shared.errors import RequestError, Unavailable
from shared.log.fold import Dialect
from shared.log.ids import START, EventId


class ChunkPlace(NamedTuple):
    """Where an answer begins: `head` is sent first, then every entry after `cursor`."""

    cursor: EventId = START
    head: bytes = b""  # the rest of an entry (or of the opening) from chunk N on


async def locate(hub: Hub, relay: Relay, dialect: Dialect, number: int) -> ChunkPlace:
    """Return the place of chunk `number`, by the rules of this module.

    Raises:
        RequestError: `stream_reset`: the client has to read again from chunk 0.
        Unavailable: the log could not be read within `LOG_READ_S`, or it expired meanwhile.
    """
    log = relay.encoded_log(dialect)
    if number > log.chunks_up_to(0):
        with Waiter(relay, hub.now()) as waiter:
            async with _read_timeout():
                await _fold(relay, log, waiter)
            if number > log.chunks:
                await _await_chunk(relay, log, waiter, number)
            async with _read_timeout():
                return await _find(relay, log, waiter, number)
    if number == log.chunks_up_to(0):
        return ChunkPlace()
    found = log.find_chunk(number)
    assert found is not None  # the opening is never trimmed
    return ChunkPlace(START, found[1])


async def fold_all(hub: Hub, relay: Relay, dialect: Dialect) -> EncodedLog:
    """Return the log in `dialect`, with every present entry folded, so that `chunks` is complete.

    Raises:
        Unavailable: the log could not be read within `LOG_READ_S`, or it expired meanwhile.
    """
    log = relay.encoded_log(dialect)
    with Waiter(relay, hub.now()) as waiter:
        async with _read_timeout():
            await _fold(relay, log, waiter)
    return log


def stream_reset() -> RequestError:
    """Return the error for a chunk number that cannot be placed."""
    return request_error(
        "stream_reset", "after a loss the chunks have new numbers: read again from 0"
    )


@asynccontextmanager
async def _read_timeout() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LOG_READ_S):
            yield
    except TimeoutError:
        raise Unavailable("the log could not be read in time") from None


async def _fold(relay: Relay, log: EncodedLog, waiter: Waiter) -> None:
    """Read the log up to its present end and fold it, in steps that let other tasks run."""
    if not relay.is_over:
        relay.repair()
    await waiter.until(lambda: relay.feed.is_up_to_date or relay.is_over)
    _check_not_expired(waiter)
    log.encode()
    while not log.is_complete:
        if log.is_refill_needed(log.count):
            relay.refill_soon()
            await waiter.changed()
            _check_not_expired(waiter)
        else:
            await asyncio.sleep(0)
        log.encode()


async def _await_chunk(relay: Relay, log: EncodedLog, waiter: Waiter, number: int) -> None:
    """Wait up to `CURSOR_WAIT_S` for chunk `number` - 1, which the client has seen."""
    try:
        async with asyncio.timeout(CURSOR_WAIT_S):
            while log.chunks < number and not (log.is_finished or relay.is_over):
                await waiter.changed()
                _check_not_expired(waiter)
                await _fold_new_entries(log)
    except TimeoutError:
        raise stream_reset() from None


async def _fold_new_entries(log: EncodedLog) -> None:
    log.encode()
    while not log.is_complete:
        await asyncio.sleep(0)
        log.encode()


async def _find(relay: Relay, log: EncodedLog, waiter: Waiter, number: int) -> ChunkPlace:
    while number <= log.chunks_up_to(relay.feed.ids.seq_before_jump):
        found = log.find_chunk(number)
        if found is not None:
            seq, head = found
            return ChunkPlace(relay.feed.ids.at(seq), head)
        if relay.feed.base:
            relay.refill_soon()
            await waiter.changed()
            _check_not_expired(waiter)
        await _fold_new_entries(log)
    raise stream_reset()


def _check_not_expired(waiter: Waiter) -> None:
    if waiter.outcome is not None:
        raise Unavailable("the log is gone")
