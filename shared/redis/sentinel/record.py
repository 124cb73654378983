"""Decides which server is the master, from what sentinels say. Pure.

Each sentinel has a view of its own, and the views change at different times. A view has an epoch,
which grows with every failover. So the view with the highest epoch counts:

    answers of all sentinels that answer in time
        the highest epoch is below the record's       → nobody: the answers are old
        the highest names the master that was left    → nobody, for `SWITCH_WAIT_S` after the notice
        else                                          → that master, and its epoch is recorded

Invariant: after a notice that the master was left, the record names it again only under a higher
epoch or after `SWITCH_WAIT_S`. Has no clock: callers pass the loop time in seconds as `now`.
Source: redis.io/docs/latest/develop/reference/sentinel-clients, and sentinel.c of Redis 7.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.config.redis_hosts import HostPort

SWITCH_WAIT_S = 2.0  # sentinels tell one another their views every 2 s
EPOCH_WAIT_S = 5.0  # after so long with lower epochs only, the sentinels were set up anew


@dataclass(frozen=True, slots=True)
class View:
    """The record of one sentinel about the service.

    Attributes:
        sentinel: the one that said it.
        others: further sentinels that it knows.
        down_after_ms: silence of the master after which it counts as down.
    """

    sentinel: HostPort
    master: HostPort
    epoch: int
    replicas: int
    others: int
    quorum: int
    down_after_ms: int
    failover_timeout_ms: int


class MasterRecord:
    """The master of one service, as far as this process can tell.

    Attributes:
        master: None: the sentinels have to be asked.
        epoch: of the view that named the last master.
    """

    def __init__(self) -> None:
        self.master: HostPort | None = None
        self.epoch = -1
        self._left: HostPort | None = None  # the master that a notice has named as left
        self._left_until = 0.0
        self._behind_since: float | None = None  # since when all answers are older than the record

    def note_switch(self, old: HostPort, now: float) -> bool:
        """Take a sentinel's notice that `old` is the master no more.

        Returns:
            Whether `old` was the master of the record: all connections to it must be dropped.
        """
        if old != self.master:
            return False
        self._left, self._left_until = old, now + SWITCH_WAIT_S
        self.master = None
        return True

    def choose(self, views: Sequence[View], now: float) -> HostPort | None:
        """Record the master that the views name; None: they do not name one now."""
        if not views:
            return None
        best = max(views, key=lambda view: view.epoch)
        if best.epoch < self.epoch:
            if self._behind_since is None:
                self._behind_since = now
            if now - self._behind_since < EPOCH_WAIT_S:
                return None
        self._behind_since = None
        is_left = best.master == self._left and best.epoch == self.epoch
        if is_left and now < self._left_until:
            return None
        self._left = None
        self.master, self.epoch = best.master, best.epoch
        return self.master
