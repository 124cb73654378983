"""Ends that nobody has noted: looked for among those that a webhook waits for.

Whoever writes an end notes it (`forget` in shared/queue/lanes.py), unless he dies before he can;
and the ends of other kinds than generations are found here alone. What was registered and never
accepted is dropped; what was there and is gone is told as lost. The looks of one owner are spaced
(`OWNER_LOOKS_S` in shared/later/webhooks.py), so that one who waits for very many holds up nobody
else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from shared.errors import NotFound
from shared.later.webhooks import (
    Webhook,
    WebhookEvent,
    WebhookRecord,
    end,
    generation_event,
    look_call,
    lost_event,
    read_record,
    read_told,
)
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts

LOOK_AGAIN_S = 30.0  # at what has not ended yet, where somebody ought to note its end
LOOK_FOR_S = 2.0  # where nobody does: kinds that have a finder
MISSING_MAX = 2  # looks that found nothing of it, after which it is taken for lost
LOOKS_MAX = 500
UNFINISHED = (b"queued", b"running")

Finder = Callable[[str, Mapping[str, Any]], Awaitable[WebhookEvent | None]]


class Ends:
    """Looks for ends.

    Args:
        finders: by kind, beside generations: returns the event of what has ended and None of what
            has not; raises NotFound of what is not there.
    """

    def __init__(self, redis: Client, finders: Mapping[str, Finder]) -> None:
        self.redis = redis
        self.finders = dict(finders)
        self._scripts = Scripts(redis)

    async def look(self, now_ms: int) -> None:
        """Look at those whose turn it is; what has ended becomes due.

        Raises:
            Unavailable.
        """
        with translated():
            found = await self.redis.zrangebyscore(
                keys.HOOKS_WAITING, "-inf", now_ms, start=0, num=LOOKS_MAX
            )
        ids = [raw.decode() for raw in found]
        unfinished = await self._unfinished(ids) if ids else {}
        await self._put_off(unfinished, "generation", LOOK_AGAIN_S)
        for subject_id in ids:
            if subject_id not in unfinished:
                await self._look_at(subject_id, now_ms)

    async def _unfinished(self, ids: Sequence[str]) -> dict[str, str]:
        """Generations that go on, as nearly all of them do: found in one round trip.

        Returns: whose each is.
        """
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for subject_id in ids:
                pipeline.hmget(keys.hook(subject_id), ["state", "kind", "owner"])
                pipeline.hget(keys.meta(subject_id), "status")
            replies = await pipeline.execute()
        triples = zip(ids, replies[::2], replies[1::2], strict=True)
        return {
            one: (owner or b"").decode()
            for one, (state, kind, owner), status in triples
            if (state, kind) == (b"waiting", b"generation") and status in UNFINISHED
        }

    async def _put_off(self, owners: Mapping[str, str], kind: str, pause_s: float) -> None:
        """Look again later at subjects of one kind, given by whose each is."""
        seen = ("seen", "1", "missing", "0")
        calls = [
            look_call(subject_id, kind, owner, after_s=pause_s, fields=seen)
            for subject_id, owner in owners.items()
        ]
        await self._scripts.run_all([("hook_wait", call) for call in calls])

    async def _look_at(self, subject_id: str, now_ms: int) -> None:
        record = await read_record(self.redis, subject_id)
        if record is None or record.state != "waiting" or record.webhook is None:
            # Nothing is known of it any more; or it is due, or done, and was registered again.
            await self._drop(subject_id, with_record=False)
            return
        finder = self.finders.get(record.kind, self._find_generation)
        try:
            event = await finder(subject_id, record.about)
        except NotFound:
            await self._miss(subject_id, record, record.webhook, now_ms)
            return
        if event is None:
            pause_s = LOOK_FOR_S if record.kind in self.finders else LOOK_AGAIN_S
            await self._put_off({subject_id: record.owner}, record.kind, pause_s)
        else:
            await end(self.redis, subject_id, record.webhook, event, owner=record.owner)

    async def _miss(
        self, subject_id: str, record: WebhookRecord, webhook: Webhook, now_ms: int
    ) -> None:
        if record.missing + 1 < MISSING_MAX:
            later = {subject_id: now_ms + round(LOOK_AGAIN_S * 1000)}
            with translated():
                pipeline = self.redis.pipeline(transaction=False)
                pipeline.hset(keys.hook(subject_id), "missing", str(record.missing + 1))
                pipeline.zadd(keys.HOOKS_WAITING, later, xx=True)
                await pipeline.execute()
        elif record.is_seen:
            event = lost_event(subject_id, record.kind, record.about)
            await end(self.redis, subject_id, webhook, event, owner=record.owner)
        else:
            await self._drop(subject_id, with_record=True)  # it was never accepted

    async def _find_generation(
        self, generation_id: str, about: Mapping[str, Any]
    ) -> WebhookEvent | None:
        fields = await read_told(self.redis, generation_id)
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
