"""Checks waiting webhooks for subjects whose end was not noted.

The code that ends a generation also notes its webhook as due (`forget` in shared/queue/leaving.py),
unless the process dies in between. The ends of batches are found only here. A webhook whose
subject was never accepted is dropped; a subject that existed and is absent is reported as lost.
The checks of one owner are spaced (`OWNER_CHECKS_PER_S` in shared/later/webhooks.py), so that an
owner with very many waiting webhooks does not delay the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from shared.errors import NotFound
from shared.later.webhooks import (
    FINDER_CHECK_S,
    Webhook,
    WebhookEvent,
    WebhookRecord,
    check_call,
    generation_event,
    lost_event,
    make_due,
    read_event_fields,
    read_record,
)
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts

GENERATION_CHECK_S = 30.0  # until an unfinished generation is checked again
MISSING_MAX = 2  # checks in a row without the subject, after which it is lost
CHECKS_MAX = 500  # in one call of `Ends.check`
UNFINISHED = (b"queued", b"running")

Finder = Callable[[str, Mapping[str, Any]], Awaitable[WebhookEvent | None]]


class Ends:
    """Checks the subjects of waiting webhooks.

    Args:
        finders: by kind, for subjects other than generations. A finder returns the event of an
            ended subject, or None; it raises NotFound if the subject is absent.
    """

    def __init__(self, redis: Client, finders: Mapping[str, Finder]) -> None:
        self.redis = redis
        self.finders = dict(finders)
        self._scripts = Scripts(redis)

    async def check(self, now_ms: int) -> None:
        """Check the subjects whose time has come. The webhooks of ended subjects become due.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        with translated():
            found = await self.redis.zrangebyscore(
                keys.HOOKS_WAITING, "-inf", now_ms, start=0, num=CHECKS_MAX
            )
        ids = [raw.decode() for raw in found]
        unfinished = await self._unfinished(ids) if ids else {}
        await self._put_off(unfinished, "generation", GENERATION_CHECK_S)
        for subject_id in ids:
            if subject_id not in unfinished:
                await self._check_one(subject_id, now_ms)

    async def _unfinished(self, ids: Sequence[str]) -> dict[str, str]:
        """Find the unfinished generations, nearly all of them, in one round trip.

        Returns:
            the owner of each.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for subject_id in ids:
                pipeline.hmget(keys.hook(subject_id), ["state", "kind", "owner"])
                pipeline.hget(keys.meta(subject_id), "status")
            replies = await pipeline.execute()
        triples = zip(ids, replies[::2], replies[1::2], strict=True)
        return {
            subject_id: (owner or b"").decode()
            for subject_id, (state, kind, owner), status in triples
            if (state, kind) == (b"waiting", b"generation") and status in UNFINISHED
        }

    async def _put_off(self, owners: Mapping[str, str], kind: str, pause_s: float) -> None:
        """Check unfinished subjects of one kind again in `pause_s`; `owners`: of each subject."""
        seen = ("seen", "1", "missing", "0")
        calls = [
            check_call(subject_id, kind, owner, after_s=pause_s, fields=seen)
            for subject_id, owner in owners.items()
        ]
        await self._scripts.run_all([("hook_wait", call) for call in calls])

    async def _check_one(self, subject_id: str, now_ms: int) -> None:
        record = await read_record(self.redis, subject_id)
        if record is None or record.state != "waiting" or record.webhook is None:
            # There is no record, or it is due or done and was registered again.
            await self._drop(subject_id, with_record=False)
            return
        finder = self.finders.get(record.kind, self._find_generation)
        try:
            event = await finder(subject_id, record.about)
        except NotFound:
            await self._miss(subject_id, record, record.webhook, now_ms)
            return
        if event is None:
            pause_s = FINDER_CHECK_S if record.kind in self.finders else GENERATION_CHECK_S
            await self._put_off({subject_id: record.owner}, record.kind, pause_s)
        else:
            await make_due(self.redis, subject_id, record.webhook, event, owner=record.owner)

    async def _miss(
        self, subject_id: str, record: WebhookRecord, webhook: Webhook, now_ms: int
    ) -> None:
        if record.missing + 1 < MISSING_MAX:
            later = {subject_id: now_ms + round(GENERATION_CHECK_S * 1000)}
            with translated():
                pipeline = self.redis.pipeline(transaction=False)
                pipeline.hset(keys.hook(subject_id), "missing", str(record.missing + 1))
                pipeline.zadd(keys.HOOKS_WAITING, later, xx=True)
                await pipeline.execute()
        elif record.is_seen:
            event = lost_event(subject_id, record.kind, record.about)
            await make_due(self.redis, subject_id, webhook, event, owner=record.owner)
        else:
            await self._drop(subject_id, with_record=True)  # the subject was never accepted

    async def _find_generation(
        self, generation_id: str, about: Mapping[str, Any]
    ) -> WebhookEvent | None:
        fields = await read_event_fields(self.redis, generation_id)
        if not fields:
            raise NotFound
        if fields.get(b"status") == b"sealed":
            return lost_event(generation_id, "generation", about)
        return generation_event(generation_id, fields)

    async def _drop(self, subject_id: str, *, with_record: bool) -> None:
        with translated():
            pipeline = self.redis.pipeline()
            if with_record:
                pipeline.delete(keys.hook(subject_id))
            pipeline.zrem(keys.HOOKS_WAITING, subject_id)
            await pipeline.execute()
