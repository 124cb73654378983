"""Ends connections when the credentials with which they were opened expire or are taken away.

One timer of the loop for each connection whose credentials expire, and no task. The timer keeps the
connection alive, so its owner cancels the timer at the connection's end.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.types import Scope

from api.hub.contracts import Connection, ReadingOutcome
from api.transport.extensions import CHECKED_AT, IDENTITY, KEY_WATCH, SHARE_WATCH
from shared.config.credentials import Identity

SHARE_WAIT_S = 1.0  # a long poll with a share waits so long at most
WARNING_S = 60.0  # a socket is told so long before its credentials expire


def seconds_left(identity: Identity | None) -> float | None:
    """Return how long connections that begin now may last, s; None: without an end."""
    now = time.time()
    ends_at = None if identity is None else identity.ends_at(now)
    return None if ends_at is None else max(0.0, ends_at - now)


def seconds_left_of(scope: Scope) -> float | None:
    """Return how long the answer to a request may last from now on, s; None: without an end.

    The leeway is for a token that has expired when the request comes, not for one that expires
    while the answer waits for its beginning. So the time of the check counts, and not the present.
    """
    identity: Identity | None = scope.get(IDENTITY)
    now = time.time()
    ends_at = None if identity is None else identity.ends_at(scope.get(CHECKED_AT, now))
    return None if ends_at is None else max(0.0, ends_at - now)


def wait_s_max(identity: Identity | None) -> float:
    """Return how long a long poll may wait: not past the end of the credentials, s.

    With a share a second, so that a poll does not outlive a share that is deleted meanwhile.
    """
    left_s = seconds_left(identity)
    if identity is None or left_s is None:
        return math.inf
    return left_s if identity.share is None else min(left_s, SHARE_WAIT_S)


class ExpiryWatch(NamedTuple):
    """Watches the credentials of a stream. The caller calls `cancel` when the stream ends."""

    cancel: Callable[[], None]


def break_off_at_expiry(scope: Scope, connection: Connection) -> ExpiryWatch | None:
    """Break `connection` off when the credentials of its request expire or are taken away.

    Returns:
        None: the credentials do not end while the node runs.
    """
    identity: Identity | None = scope.get(IDENTITY)
    if identity is not None and KEY_WATCH in scope:
        key_watch = scope[KEY_WATCH]
        key_watch.add(identity, connection)
        return ExpiryWatch(functools.partial(key_watch.remove, identity, connection))
    left_s = seconds_left_of(scope)
    if identity is None or left_s is None:
        return None
    loop = asyncio.get_running_loop()
    timer = loop.call_later(left_s, connection.break_off, ReadingOutcome.EXPIRED)
    if identity.share is None:
        return ExpiryWatch(timer.cancel)
    watch, share_id = scope[SHARE_WATCH], identity.share.id
    watch.add(share_id, connection)

    def cancel() -> None:
        timer.cancel()
        watch.remove(share_id, connection)

    return ExpiryWatch(cancel)


class SocketExpiry:
    """The end of the credentials of one socket: a warning before it, then the end.

    Args:
        warn: called `WARNING_S` before the end, or soon if less time is left.
        end: called at the end.
    """

    __slots__ = ("_end", "_timers", "_warn")

    def __init__(self, warn: Callable[[], None], end: Callable[[], None]) -> None:
        self._warn = warn
        self._end = end
        self._timers: list[asyncio.TimerHandle] = []

    def set(self, identity: Identity) -> None:
        """Count from now on with the end of these credentials; forget the earlier ones."""
        self.cancel()
        left_s = seconds_left(identity)
        if left_s is not None:
            loop = asyncio.get_running_loop()
            self._timers = [
                loop.call_later(max(0.0, left_s - WARNING_S), self._warn),
                loop.call_later(left_s, self._end),
            ]

    def cancel(self) -> None:
        """Call nothing any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []
