"""Remembers which owners plan work with tokens, so that the jobs role may start that work.

The file of keys names the owners of keys at any time. A request brings a token, and only the token
names its owner; but planned work starts without a request. So a node notes the owner of each token
that plans work, and renews the note when a valid token of this owner comes again. The jobs role
suspends the work of an owner without a token for `TOKEN_OWNER_KNOWN_S`, as if the owner's key were
removed. A trusted key that acts for an owner counts as a token of this owner.

    tr:{jobs}:token-owners  zset  <digest of the owner> -> when a token last named the owner, Unix s
"""

from __future__ import annotations

from collections.abc import Collection

from shared.redis import keys
from shared.redis.client import Client, translated

TOKEN_OWNER_KNOWN_S = 30 * 86_400.0
RENEW_S = 3_600.0  # an owner who comes more often is noted once in this time
OWNERS_MAX = 10_000  # whose renewals a node remembers, and in one command


async def note_planner(redis: Client, owner: str, now_s: float) -> None:
    """Note that an owner plans work with a token.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        await redis.zadd(keys.TOKEN_OWNERS, {keys.digest_of(owner): now_s})
        await redis.zremrangebyscore(keys.TOKEN_OWNERS, "-inf", now_s - TOKEN_OWNER_KNOWN_S)


async def renew_planners(redis: Client, owners: Collection[str], now_s: float) -> None:
    """Note that owners still come with good tokens; those who plan nothing stay unknown.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    if owners:
        with translated():
            found = {keys.digest_of(owner): now_s for owner in owners}
            await redis.zadd(keys.TOKEN_OWNERS, found, xx=True)


async def is_planner(redis: Client, owner: str, now_s: float) -> bool:
    """Whether the owner plans work with tokens, and brought one within `TOKEN_OWNER_KNOWN_S`.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        seen_s = await redis.zscore(keys.TOKEN_OWNERS, keys.digest_of(owner))
    return seen_s is not None and now_s - float(seen_s) < TOKEN_OWNER_KNOWN_S


class SeenOwners:
    """The owners whom tokens have named at this node, until they are noted. Pure.

    At most `OWNERS_MAX` owners wait, and as many are remembered; beyond that an owner may be noted
    more often than once in `RENEW_S`, or an hour later.
    """

    def __init__(self) -> None:
        self._noted_s: dict[str, float] = {}
        self._waiting: set[str] = set()

    def add(self, owner: str, now_s: float) -> None:
        """A good token has named the owner."""
        noted_s = self._noted_s.get(owner)
        if noted_s is not None and now_s - noted_s < RENEW_S:
            return
        if len(self._waiting) < OWNERS_MAX:
            if len(self._noted_s) >= OWNERS_MAX:
                self._noted_s.clear()
            self._noted_s[owner] = now_s
            self._waiting.add(owner)

    def take(self) -> set[str]:
        """Return the owners who are to be noted, and forget them."""
        taken, self._waiting = self._waiting, set()
        return taken
