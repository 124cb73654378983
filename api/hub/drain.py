"""Breaks off all connections of a node that stops, in random order and evenly spread over time.

The clients reconnect to other nodes, which must not get all of them in one second.
This module calls only `break_off` of a connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection

from api.hub.contracts import Connection, ReadingOutcome

STEP_S = 0.02  # between two groups of connections
LATE_CONNECTIONS_S = (
    3.0  # how long connections that are still open after the window are broken off again
)


async def break_off_all(connections: Collection[Connection], within_s: float) -> None:
    """Break off each connection; return at the latest `LATE_CONNECTIONS_S` after the window.

    Args:
        connections: the open connections; a connection disappears from here when it is closed.
        within_s: length of the window, s.
    """
    waiting = list(connections)
    random.shuffle(waiting)
    loop = asyncio.get_running_loop()
    total, began_at = len(waiting), loop.time()
    while connections and loop.time() < began_at + within_s:
        due = (loop.time() - began_at) / within_s * total
        while waiting and total - len(waiting) < due:
            connection = waiting.pop()
            if connection in connections:
                connection.break_off(ReadingOutcome.DRAINED)
        await asyncio.sleep(min(STEP_S, within_s))
    deadline = loop.time() + LATE_CONNECTIONS_S
    while connections and loop.time() < deadline:
        for connection in list(connections):
            if connection in connections:
                connection.break_off(ReadingOutcome.DRAINED)
        await asyncio.sleep(STEP_S)
