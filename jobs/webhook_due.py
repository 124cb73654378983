"""Which deliveries are due: owners in turn, the hosts of each in turn, a few of each host.

However many hosts one owner has, the others come in the same look, and near its front.
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

OWNERS_MAX = 50  # looked at in one turn, the longest waiting first
HOSTS_MAX = 100  # of all of them; of one that is alone
HOSTS_LEAST = 4  # of each owner
TO_ONE_HOST_MAX = 4  # under way, over all processes
LOOK_MS = 1_000  # at an owner or host again, where something is due

Item = TypeVar("Item")


class Due(NamedTuple):
    """One delivery: of what, and by whom to which host (`keys.hook_place`)."""

    subject_id: str
    place: str


class DueHooks:
    """Finds what is due."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self._scripts = Scripts(redis)

    async def find(self, now_ms: int) -> list[Due]:
        """Return what is due, owners in turn.

        Raises:
            Unavailable.
        """
        with translated():
            found = await self.redis.zrangebyscore(
                keys.HOOKS_OWNERS, "-inf", now_ms, start=0, num=OWNERS_MAX
            )
        # What an older version has written has no owner, and names none in the index of owners.
        owners = list(dict.fromkeys([*(owner.decode() for owner in found), ""]))
        each = max(HOSTS_LEAST, HOSTS_MAX // len(owners))
        calls: list[Call] = [
            ([keys.HOOKS_OWNERS, keys.hooks_hosts(owner)], [owner, each, LOOK_MS])
            for owner in owners
        ]
        places = [
            [place.decode() for place in reply] for reply in await self._ask("hook_hosts", calls)
        ]
        return in_turn([in_turn(dues) for dues in await self._at(places)])

    async def _at(self, places: Sequence[Sequence[str]]) -> list[list[list[Due]]]:
        """What is due at each place of each owner."""
        calls: list[Call] = []
        for place in chain.from_iterable(places):
            digest, _ = keys.split_hook_place(place)
            names = [keys.hooks_hosts(digest), keys.hooks_due(place)]
            calls.append((names, [place, TO_ONE_HOST_MAX, LOOK_MS]))
        replies = iter(await self._ask("hook_due", calls))
        return [
            [[Due(one.decode(), place) for one in next(replies)] for place in of_owner]
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
    return [item for one in rounds for wrapped in one for item in wrapped]
