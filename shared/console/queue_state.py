"""The state of one partition of the queue for the console: how many wait, since when, and which.

A look at one partition is `LOOK_COMMANDS` commands, however many generations wait. Pure: the caller
sends the commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.redis import keys
from shared.redis.client import Command

LOOK_COMMANDS = 2 * len(keys.PRIORITIES) + 2


class Queued(NamedTuple):
    """A waiting generation. `since_ms`: when it began to wait, or is to be tried again."""

    id: str
    priority: str
    since_ms: int


class PartitionState(NamedTuple):
    """One partition at one time.

    Attributes:
        waiting: generations by priority.
        queued: those that have waited longest.
        at_ms: when this was read, Redis's clock.
    """

    tag: str
    waiting: dict[str, int]
    running: int
    later: int
    queued: list[Queued]
    at_ms: int

    def oldest_s(self, priority: str) -> float | None:
        """Return how long the first one has waited, s; None: none waits."""
        since = [each.since_ms for each in self.queued if each.priority == priority]
        return max(0, self.at_ms - min(since)) / 1000 if since else None


def look_commands(tag: str, rows: int) -> list[Command]:
    """Return the commands whose replies `state_of` reads.

    Args:
        rows: waiting generations of each priority that the look names, at least 1.
    """
    commands: list[Command] = [("ZCARD", keys.running(tag)), ("ZCARD", keys.later(tag))]
    for priority in keys.PRIORITIES:
        name = keys.waiting(priority, tag)
        commands += [
            ("ZCARD", name),
            ("ZRANGE", name, 0, rows - 1, "WITHSCORES"),
        ]
    return commands


def state_of(tag: str, replies: Sequence[Any], at_ms: int) -> PartitionState | None:
    """Read the replies of `look_commands`; None: the partition is on a shard that is away."""
    if any(isinstance(reply, Exception) for reply in replies):
        return None
    running, later, *rest = replies
    waiting, queued = {}, []
    for priority, number, found in zip(keys.PRIORITIES, rest[::2], rest[1::2], strict=True):
        waiting[priority] = number
        queued += [Queued(name.decode(), priority, since) for name, since in _scored(found)]
    return PartitionState(tag, waiting, running, later, queued, at_ms)


def _scored(reply: Any) -> list[tuple[bytes, int]]:
    """Return members with their scores: redis-py has pairs, our own connections a flat list."""
    if reply and isinstance(reply[0], tuple | list):
        return [(name, int(float(score))) for name, score in reply]
    return [(name, int(float(score))) for name, score in zip(reply[::2], reply[1::2], strict=True)]
