"""Lists accepted generations in the indexes of their owner and session.

The indexes have slots of their own. On a cluster their shard may be away while those of the
generation and of its partition answer. Then the prompt is accepted all the same: its id is noted
beside the partition, and the janitor (shared/queue/janitor.py) lists it when the shards are back.
Invariant: a note is removed only after all indexes of its generation were written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.lifetimes import listed_ms
from shared.log.records import RESTORE_WITHIN_S
from shared.log.store import Store
from shared.queue.old_ids import OldIds, find_old
from shared.queue.partitions import partitions_of
from shared.redis import keys
from shared.redis.client import Client, Command, is_refusal
from shared.redis.shards import serves

CAUGHT_UP_PER_PASS = 500  # generations of one partition
LISTED_FIELDS = ("owner", "session", "created")


class Listed(NamedTuple):
    """A generation as its indexes name it. `created_at_ms`: Redis's clock."""

    generation_id: str
    owner: str
    session: str
    created_at_ms: int


class Listing:
    """The indexes of owners and sessions on one Redis."""

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.settings = settings
        self._partitions = partitions_of(settings)
        self._kept_ms = listed_ms(settings)
        self._old = OldIds(store)

    async def add(self, listed: Listed, silence_s: float = 0.0) -> None:
        """List a generation, or note it for later. Safe to repeat.

        Args:
            silence_s: how much longer than usual the lists are kept.

        Raises:
            Unavailable: Redis did not answer in time, neither for an index nor for the note.
        """
        if serves(self.redis, *self._names(listed)):
            replies = await self._run(self._commands(listed, silence_s))
            if (refused := _first_refusal(replies)) is None:
                await self._drop_old(listed, replies)
                return
            if not self._can_note:
                raise Unavailable(f"Redis refuses: {refused}") from refused
        tag = self._partitions.of(listed.generation_id)
        note: Command = ("ZADD", keys.unlisted(tag), listed.created_at_ms, listed.generation_id)
        if (refused := _first_refusal(await self._run([note]))) is not None:
            raise Unavailable(f"Redis refuses: {refused}") from refused

    @property
    def _can_note(self) -> bool:
        """Whether a refusal may concern the shards of the indexes only."""
        return bool(getattr(self.redis, "is_sharded", False))

    async def _run(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return await self.store.scripts.pipeline.run(commands)
        except Unavailable as exc:
            if not self._can_note:
                raise
            return [exc]

    def _names(self, listed: Listed) -> list[str]:
        names = [keys.owner(listed.owner)]
        if listed.session:
            names.append(keys.session(listed.owner, listed.session))
            if self.settings.has_tokens:  # whose claim may name sessions of other owners
                names.append(keys.session_of_all(listed.session))
        return names

    def _commands(self, listed: Listed, silence_s: float = 0.0) -> list[Command]:
        kept_ms = listed_ms(self.settings, silence_s)
        commands: list[Command] = []
        for name in self._names(listed):
            commands += [
                ("ZADD", name, listed.created_at_ms, listed.generation_id),
                find_old(name, listed.created_at_ms - self._kept_ms),
                ("PEXPIRE", name, kept_ms),
            ]
        return commands

    async def _drop_old(self, listed: Listed, replies: Sequence[Any]) -> None:
        """Remove old ids from those lists whose reply to `find_old` is not empty."""
        for name, old in zip(self._names(listed), replies[1::3], strict=True):
            if old:
                await self._old.drop(name, listed.created_at_ms - self._kept_ms)

    async def catch_up(self, tag: str, now_ms: int) -> int:
        """List noted generations of a partition whose shards answer. Return their number.

        Does nothing on a single server, where no note is ever written.

        Raises:
            Unavailable: the partition or the generations cannot be read now.
        """
        if not self._can_note:
            return 0
        noted = ("ZRANGE", keys.unlisted(tag), 0, CAUGHT_UP_PER_PASS - 1, "WITHSCORES")
        (found,) = _checked(await self.store.scripts.pipeline.run([noted]))
        if not found:
            return 0
        ids = [raw.decode() for raw in found[::2]]
        read: list[Command] = [("HMGET", keys.meta(name), *LISTED_FIELDS) for name in ids]
        replies = await self.store.scripts.pipeline.run(read)
        done = [
            generation_id
            for generation_id, since, fields in zip(ids, found[1::2], replies, strict=True)
            if await self._list(generation_id, now_ms - int(float(since)), fields)
        ]
        if done:
            _checked(await self.store.scripts.pipeline.run([("ZREM", keys.unlisted(tag), *done)]))
        return len(done)

    async def _list(self, generation_id: str, age_ms: int, fields: Any) -> bool:
        """List one noted generation. Return whether its note is settled."""
        if isinstance(fields, Exception):
            return False
        owner, session, created = fields
        if owner is None or created is None:  # lost or never created; a worker may restore it
            return age_ms > RESTORE_WITHIN_S * 1000
        listed = Listed(generation_id, owner.decode(), (session or b"").decode(), int(created))
        if not serves(self.redis, *self._names(listed)):
            return False
        return _first_refusal(await self._run(self._commands(listed))) is None


def _first_refusal(replies: Sequence[Any]) -> Exception | None:
    return next((reply for reply in replies if isinstance(reply, Exception)), None)


def _checked(replies: list[Any]) -> list[Any]:
    if (refused := _first_refusal(replies)) is not None:
        if not is_refusal(refused):
            raise refused
        raise Unavailable(f"Redis refuses: {refused}") from refused
    return replies
