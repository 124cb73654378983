"""Finds due deliveries: owners take turns, then the hosts of each owner, a few of each host.

However many hosts one owner has, deliveries of the other owners are in the same result, near its
front.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

from shared.errors import Unavailable
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

OWNERS_MAX = 50  # in one result, the longest waiting first
HOSTS_MAX = 100  # in one result
OWNER_HOSTS_MIN = 4  # of each owner in one result, if it has so many
TO_ONE_HOST_MAX = 4  # running attempts of all processes
AGAIN_MS = 1_000  # until an owner or host with due deliveries is in a result again

Item = TypeVar("Item")


class Due(NamedTuple):
    """One delivery: its subject, and its owner and host (`keys.hook_place`)."""

    subject_id: str
    place: str


class DueHooks:
    """Finds due deliveries."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self._scripts = Scripts(redis)

    async def find(self, now_ms: int) -> list[Due]:
        """Return due deliveries, owners in turn.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        with translated():
            found = await self.redis.zrangebyscore(
                keys.HOOKS_OWNERS, "-inf", now_ms, start=0, num=OWNERS_MAX
            )
        # Records of an older version have no owner, and are not in the index of owners.
        owners = list(dict.fromkeys([*(owner.decode() for owner in found), ""]))
        each = max(OWNER_HOSTS_MIN, HOSTS_MAX // len(owners))
        calls: list[Call] = [
            ([keys.HOOKS_OWNERS, keys.hooks_hosts(owner)], [owner, each, AGAIN_MS])
            for owner in owners
        ]
        places = [
            [place.decode() for place in reply] for reply in await self._ask("hook_due", calls)
        ]
        return in_turn([in_turn(dues) for dues in await self._due_at(places)])

    async def _due_at(self, places: Sequence[Sequence[str]]) -> list[list[list[Due]]]:
        """Return the due deliveries by owner, and by place within each owner."""
        calls: list[Call] = []
        for place in chain.from_iterable(places):
            digest, _ = keys.split_hook_place(place)
            names = [keys.hooks_hosts(digest), keys.hooks_due(place)]
            calls.append((names, [place, TO_ONE_HOST_MAX, AGAIN_MS]))
        replies = iter(await self._ask("hook_due", calls))
        return [
            [[Due(raw.decode(), place) for raw in next(replies)] for place in of_owner]
            for of_owner in places
        ]

    async def _ask(self, name: str, calls: Sequence[Call]) -> list[list[bytes]]:
        replies = await self._scripts.run_many(name, calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise Unavailable(f"Redis refuses: {reply}") from reply
        return replies


def in_turn(queues: Sequence[Sequence[Item]]) -> list[Item]:
    """Return the first of each queue, then the second of each, and so on."""
    rounds = zip_longest(*[[(item,) for item in queue] for queue in queues], fillvalue=())
    return [item for turn in rounds for wrapped in turn for item in wrapped]
