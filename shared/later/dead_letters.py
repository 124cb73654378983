"""Webhooks that were given up: which there are, and how an operator has them delivered again.

A dead letter is kept as long as the record of a delivered webhook, with its URL and secret. Of all
owners together `DEAD_MAX` are listed, the newest. Every coroutine may raise `Unavailable`: Redis
did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.later.webhooks import RECORD_KEPT_S
from shared.redis import keys
from shared.redis.client import Client, Command, translated
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

DEAD_MAX = 10_000
FIELDS = ("kind", "owner", "host", "tries", "reason", "result")


class DeadLetter(msgspec.Struct, frozen=True):
    """A webhook that was given up.

    Attributes:
        id: of its subject.
        kind: of its subject: `generation` or `batch`.
        host: the receiver. The URL may hold a secret, so it is shown nowhere.
        reason: why the last attempt failed: a status, or the name of an error.
    """

    id: str
    kind: str
    owner: str
    host: str
    attempts: int
    reason: str
    given_up_at_ms: int


def index_command(count: int) -> Command:
    """Return the command that reads the newest dead letters, with the time of each."""
    return ("ZREVRANGE", keys.HOOKS_DEAD, 0, count - 1, "WITHSCORES")


def record_command(subject_id: str) -> Command:
    """Return the command whose reply `letter_of` reads."""
    return ("HMGET", keys.hook(subject_id), *FIELDS)


def letter_of(subject_id: str, given_up_at_ms: int, reply: Sequence[bytes | None]) -> Any:
    """Return a dead letter; None: its record has expired, or it is due again."""
    kind, owner, host, tries, reason, result = [(raw or b"").decode() for raw in reply]
    if result != "given_up":
        return None
    return DeadLetter(subject_id, kind, owner, host, int(tries or 0), reason, given_up_at_ms)


async def newest_dead(redis: Client, count: int) -> list[str]:
    """Return the ids of the newest dead letters."""
    with translated():
        found = await redis.zrevrange(keys.HOOKS_DEAD, 0, count - 1)
    return [raw.decode() for raw in found]


async def count_dead(redis: Client) -> int:
    """Return how many dead letters there are; some of them may have expired."""
    with translated():
        return int(await redis.zcard(keys.HOOKS_DEAD))


async def redrive(redis: Client, ids: Sequence[str]) -> list[bool]:
    """Have dead letters delivered again, each with all its attempts.

    Returns:
        for each id: False: it is no dead letter, its record has expired, or it is due already.
    """
    with translated():
        pipeline = redis.pipeline(transaction=False)
        for subject_id in ids:
            pipeline.hget(keys.hook(subject_id), "place")
        places = await pipeline.execute() if ids else []
    calls = [
        _redrive_call(name, (place or b"").decode())
        for name, place in zip(ids, places, strict=True)
    ]
    replies = await Scripts(redis).run_all([("hook_redrive", call) for call in calls])
    return [bool(reply) for reply in replies]


def _redrive_call(subject_id: str, place: str) -> Call:
    digest, _ = keys.split_hook_place(place)
    names = [
        keys.hook(subject_id), keys.HOOKS_DEAD, keys.HOOKS_OWNERS, keys.hooks_hosts(digest),
        keys.hooks_due(place),
    ]  # fmt: skip
    return names, [subject_id, digest, place, round(RECORD_KEPT_S * 1000)]
