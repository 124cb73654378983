"""Shares: tokens that read one generation or one session, until they end or are deleted.

    token    trs_<26 characters of the id>_<secret>
    record   tr:{share:<id>}   hash   owner, generation, session, all, until, digest of the secret

The record has a time to live, so a share ends by itself, and a deleted record ends the share on
every node. Invariant: Redis holds no secret, only its digest.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence

from shared.config.credentials import READ, Identity, Share
from shared.errors import RequestError
from shared.log.ids import GENERATION_PREFIX, new_generation_id
from shared.redis import keys
from shared.redis.client import Client, translated

TTL_S_MAX = 7 * 86_400
SHARES_MAX = 1_000  # of one owner at a time
ID_PREFIX, TOKEN_PREFIX = "share_", "trs_"
_TOKEN = re.compile(rb"trs_([a-z0-9]{26})_([\w-]{32})", re.ASCII)
_ID = re.compile(r"share_[a-z0-9]{26}", re.ASCII)


class Shares:
    """The shares on one Redis. Every method may raise `Unavailable`."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def create(
        self, identity: Identity, *, generation: str = "", session: str = "", ttl_s: int
    ) -> tuple[str, str, int]:
        """Create a share of one generation or of one session.

        Args:
            identity: the client that shares. If its token covers the session, the share shows the
                generations of all owners in the session.
            ttl_s: from 1 to `TTL_S_MAX`.

        Returns:
            the id, the token, and when it expires, Unix seconds.

        Raises:
            RequestError: 409 `too_many_shares`.
        """
        name = new_generation_id().removeprefix(GENERATION_PREFIX)
        secret = secrets.token_urlsafe(24)
        share_id, expires_at = ID_PREFIX + name, int(time.time()) + ttl_s
        await self._register(identity.owner, share_id, expires_at)
        fields = {
            "owner": identity.owner,
            "generation": generation,
            "session": session,
            "all": "1" if identity.covers(session) else "",
            "until": str(expires_at),
            "secret": _digest(secret.encode()),
        }
        key = keys.share(share_id)
        with translated():
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.hset(key, mapping=fields)
            pipeline.expire(key, ttl_s)
            await pipeline.execute()
        return share_id, f"{TOKEN_PREFIX}{name}_{secret}", expires_at

    async def _register(self, owner: str, share_id: str, expires_at: int) -> None:
        """Add a share to those of its owner, if there is room.

        Requests that come at the same moment may pass the bound by their number.
        """
        key = keys.shares_of(owner)
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.zremrangebyscore(key, "-inf", time.time())
            pipeline.zcard(key)
            _, count = await pipeline.execute()
            if count >= SHARES_MAX:
                raise RequestError(
                    409,
                    "too_many_shares",
                    f"an owner has at most {SHARES_MAX} shares: delete some, or wait for their end",
                )
            await self._redis.zadd(key, {share_id: expires_at})
            await self._redis.expire(key, TTL_S_MAX)

    async def identify(self, token: bytes) -> Identity | None:
        """Return who comes with the token of a share; None: there is no such share."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        share_id = ID_PREFIX + parts[1].decode()
        with translated():
            found = await self._redis.hgetall(keys.share(share_id))  # type: ignore[misc]
        record = {name.decode(): value.decode() for name, value in found.items()}
        if not record or not hmac.compare_digest(record["secret"], _digest(parts[2])):
            return None
        session = record["session"]
        return Identity(
            record["owner"],
            frozenset({READ}),
            sessions=(session,) if record["all"] else (),
            expires_at=float(record["until"]),
            share=Share(share_id, record["generation"], session),
        )

    async def delete(self, share_id: str, owner: str | None) -> bool:
        """Delete a share of `owner` (None: of any owner); return whether there was one."""
        if _ID.fullmatch(share_id) is None:
            return False
        key = keys.share(share_id)
        with translated():
            found = await self._redis.hget(key, "owner")  # type: ignore[misc]
            if found is None or owner not in (None, found.decode()):
                return False
            await self._redis.delete(key)
            await self._redis.zrem(keys.shares_of(found.decode()), share_id)
        return True

    async def ended(self, share_ids: Sequence[str]) -> list[str]:
        """Return which of these shares are no more: one round trip."""
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for share_id in share_ids:
                pipeline.exists(keys.share(share_id))
            found = await pipeline.execute()
        return [
            share_id for share_id, is_there in zip(share_ids, found, strict=True) if not is_there
        ]


def _digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
