"""Webhooks: tells receivers of ends, each at least once, over hours if it must be.

What is due stands in Redis (shared/webhooks.py) and is taken for one attempt at a time under a
lease: a process that is killed in the middle of one leaves it due again. Hosts are looked at in
turn, and only a few attempts are under way to any of them, so that one that does not answer holds
up no other. No line of a log holds a URL or a secret: the host must do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from arq.worker import Function, func

from jobs.connector import ATTEMPT_S, REPLY_BYTES_MAX, AddressRefused, open_session
from jobs.source import Job
from shared import keys
from shared.counts import count
from shared.errors import NotFound, Unavailable
from shared.redis_client import Client, translated
from shared.scripts import Scripts
from shared.settings import Settings
from shared.webhooks import (
    Event,
    Record,
    Webhook,
    end,
    generation_event,
    lost_event,
    read_record,
    signed,
)

log = logging.getLogger(__name__)

PAUSES_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0)
PAUSE_S_MAX = 86_400.0  # of what a receiver may ask for
JITTER = 0.2
LEASE_S = ATTEMPT_S + 5.0
LOOK_AGAIN_S = 30.0  # at what has not ended yet, where somebody ought to note its end
LOOK_FOR_S = 2.0  # where nobody does: kinds that have a finder
MISSING_MAX = 2  # looks that found nothing of it, after which it is taken for lost
DONE_KEPT_S = 86_400.0  # what has been delivered is not delivered again
HOSTS_MAX = 100  # looked at in one turn, the longest waiting first
TO_ONE_HOST_MAX = 4  # under way, over all processes
RUNNING_MAX = 24  # under way in one process
LOOKS_MAX = 200
GONE = 410

Finder = Callable[[str, Mapping[str, Any]], Awaitable[Event | None]]


class Reply(NamedTuple):
    """How an attempt went; status 0: there was no answer."""

    status: int
    retry_after_s: float = 0.0
    reason: str = ""

    @property
    def is_delivered(self) -> bool:
        return 200 <= self.status < 300


class Webhooks:
    """The deliveries that are due.

    Args:
        finders: by kind, beside generations: returns the event of what has ended and None of what
            has not; raises NotFound of what is not there.
    """

    def __init__(
        self, redis: Client, settings: Settings, finders: Mapping[str, Finder] | None = None
    ) -> None:
        self.redis = redis
        self.settings = settings
        self.finders = dict(finders or {})
        self.scripts = Scripts(redis)
        self.running = 0
        self.functions: Sequence[Function] = [
            func(self.deliver, name="deliver_webhook", timeout=2 * LEASE_S, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        """Return attempts to make now, after a look at ends that nobody has noted."""
        await self._look_at_waiting()
        now_ms = await self._now_ms()
        with translated():
            hosts = await self.redis.zrangebyscore(
                keys.HOOKS_HOSTS, "-inf", now_ms, start=0, num=HOSTS_MAX
            )
        jobs: list[Job] = []
        for host in [name.decode() for name in hosts]:
            names = [keys.HOOKS_HOSTS, keys.hooks_due(host)]
            ids = await self.scripts.run("hook_due", names, [host, TO_ONE_HOST_MAX, 1_000])
            # An id for each second: that of a process which died is taken for a while.
            jobs += [
                Job(
                    "deliver_webhook", (raw.decode(), host), f"hook:{raw.decode()}:{now_ms // 1000}"
                )
                for raw in ids
            ]
        return jobs

    async def deliver(self, ctx: dict[Any, Any], subject_id: str, host: str) -> None:
        """Make one attempt, unless another one is being made, or was."""
        if self.running >= RUNNING_MAX:
            return  # it is found due again
        self.running += 1
        try:
            await self._deliver(subject_id, host)
        except Unavailable:
            pass  # what has been taken is due again when its lease has run out
        finally:
            self.running -= 1

    async def _deliver(self, subject_id: str, host: str) -> None:
        names = [keys.hook(subject_id), keys.hooks_due(host), keys.hooks_busy(host)]
        taken = [subject_id, round(LEASE_S * 1000), TO_ONE_HOST_MAX]
        number = int(await self.scripts.run("hook_take", names, taken))
        record = await read_record(self.redis, subject_id) if number else None
        if record is None or record.webhook is None:
            return
        reply = await self._attempt(subject_id, record.webhook, record.body)
        pause_s = None if reply.is_delivered else pause_after(number, reply)
        result = "delivered" if reply.is_delivered else "given_up"
        kept_ms = round(max(DONE_KEPT_S, 4 * self.settings.retention_s) * 1000)
        again = "" if pause_s is None else round(pause_s * 1000)
        said = [subject_id, number, again, kept_ms, result]
        is_news = bool(await self.scripts.run("hook_settle", names, said))
        await self._tell(subject_id, host, reply, number, pause_s, is_news)

    async def _attempt(self, subject_id: str, webhook: Webhook, body: bytes) -> Reply:
        is_allowed = self.settings.webhook_private == "allow"
        headers = {
            "content-type": "application/json",
            "user-agent": "tailrace",
            **signed(subject_id, webhook, body, int(time.time())),
        }
        try:
            async with (
                asyncio.timeout(ATTEMPT_S),
                open_session(is_private_allowed=is_allowed) as session,
                session.post(
                    webhook.url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                await response.content.read(REPLY_BYTES_MAX)
                return Reply(response.status, retry_after_s(response.headers))
        except TimeoutError:
            return Reply(0, reason="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Reply(0, reason="address" if _is_refused(exc) else type(exc).__name__)

    async def _tell(
        self,
        subject_id: str,
        host: str,
        reply: Reply,
        number: int,
        pause_s: float | None,
        is_news: bool,
    ) -> None:
        data = {"subject": subject_id, "host": host, "attempt": number, "status": reply.status}
        if reply.is_delivered:
            await count(self.redis, {"webhooks_delivered": 1})
            log.info("webhook delivered", extra=data)
            return
        await count(
            self.redis,
            {
                "webhook_attempts_failed": 1,
                "webhook_addresses_refused": int(reply.reason == "address"),
                "webhooks_given_up": int(pause_s is None and is_news),
            },
        )
        data |= {"reason": reply.reason, "again_s": pause_s}
        if pause_s is None:
            log.warning("webhook given up", extra=data)
        else:
            log.warning("webhook failed", extra=data)

    # What nobody has noted

    async def _look_at_waiting(self) -> None:
        now_ms = await self._now_ms()
        with translated():
            found = await self.redis.zrangebyscore(
                keys.HOOKS_WAITING, "-inf", now_ms, start=0, num=LOOKS_MAX
            )
        for subject_id in [raw.decode() for raw in found]:
            record = await read_record(self.redis, subject_id)
            if record is None or record.state != "waiting" or record.webhook is None:
                # Nothing is known of it any more; or it is due, or done, and was registered again.
                with translated():
                    await self.redis.zrem(keys.HOOKS_WAITING, subject_id)
            else:
                pause_s = await self._look(subject_id, record, record.webhook)
                if pause_s:
                    await self._look_later(subject_id, now_ms + round(pause_s * 1000))

    async def _look(self, subject_id: str, record: Record, webhook: Webhook) -> float:
        """Note an end, or that it is lost; returns seconds until another look, 0: none."""
        finder = self.finders.get(record.kind, self._find_generation)
        try:
            event = await finder(subject_id, record.about)
        except NotFound:
            return await self._miss(subject_id, record, webhook)
        if event is None:
            await self._set(subject_id, {"seen": "1", "missing": "0"})
            return LOOK_FOR_S if record.kind in self.finders else LOOK_AGAIN_S
        await end(self.redis, subject_id, webhook, event)
        return 0

    async def _miss(self, subject_id: str, record: Record, webhook: Webhook) -> float:
        if record.missing + 1 < MISSING_MAX:
            await self._set(subject_id, {"missing": str(record.missing + 1)})
            return LOOK_AGAIN_S
        if record.is_seen:
            await end(
                self.redis, subject_id, webhook, lost_event(subject_id, record.kind, record.about)
            )
        else:
            await self._drop(subject_id)  # it was never accepted
        return 0

    async def _find_generation(self, generation_id: str, about: Mapping[str, Any]) -> Event | None:
        with translated():
            name = keys.meta(generation_id)
            fields: dict[bytes, bytes] = await self.redis.hgetall(name)  # type: ignore[misc]
        if not fields:
            raise NotFound
        if fields.get(b"status") == b"sealed":
            return lost_event(generation_id, "generation", about)
        return generation_event(generation_id, fields)

    async def _set(self, subject_id: str, fields: Mapping[str, str]) -> None:
        with translated():
            await self.redis.hset(keys.hook(subject_id), mapping=dict(fields))  # type: ignore[misc]

    async def _look_later(self, subject_id: str, at_ms: int) -> None:
        with translated():
            await self.redis.zadd(keys.HOOKS_WAITING, {subject_id: at_ms}, xx=True)

    async def _drop(self, subject_id: str) -> None:
        with translated():
            pipeline = self.redis.pipeline()
            pipeline.delete(keys.hook(subject_id))
            pipeline.zrem(keys.HOOKS_WAITING, subject_id)
            await pipeline.execute()

    async def _now_ms(self) -> int:
        with translated():
            seconds, micros = await self.redis.time()
        return int(seconds * 1000 + micros // 1000)


def pause_after(number: int, reply: Reply) -> float | None:
    """Return the seconds until the next attempt after the one with this number; None: no more."""
    if reply.status == GONE or number > len(PAUSES_S):
        return None
    pause_s = max(PAUSES_S[number - 1], min(reply.retry_after_s, PAUSE_S_MAX))
    return pause_s * random.uniform(1.0, 1.0 + JITTER)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Read Retry-After, seconds or a date; 0 where there is none that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return 0.0


def _is_refused(exc: BaseException) -> bool:
    return isinstance(exc, AddressRefused) or isinstance(
        getattr(exc, "os_error", None), AddressRefused
    )
