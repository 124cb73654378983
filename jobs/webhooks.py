"""Webhooks: tells receivers of ends, each at least once, over hours if it must be.

What is due stands in Redis (shared/later/webhooks.py) and is taken for one attempt at a time under
a lease: a process that is killed in the middle of one leaves it due again. Owners are looked at in
turn, then the hosts of each (jobs/webhook_due.py); only a few attempts are under way to any host,
and of any owner (jobs/webhook_slots.py), so that receivers that do not answer hold up no others. No
line of a log holds a URL or a secret: the host must do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from arq.worker import Function, func

from jobs.connector import ATTEMPT_S, REPLY_BYTES_MAX, AddressRefused, open_session
from jobs.source import Job
from jobs.webhook_due import TO_ONE_HOST_MAX, DueHooks
from jobs.webhook_ends import Ends, Finder
from jobs.webhook_slots import Experience, Hope, Slots
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.later.webhooks import Webhook, read_record, signed
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.counts import count
from shared.redis.scripts import Scripts

log = logging.getLogger(__name__)

NAME = "deliver_webhook"
PAUSES_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0)
PAUSE_S_MAX = 86_400.0  # of what a receiver may ask for
JITTER = 0.2
LEASE_S = ATTEMPT_S + 5.0
DONE_KEPT_S = 86_400.0  # what has been delivered is not delivered again
IN_A_ROW_S = 5.0  # then other owners and hosts have their turn
GONE = 410


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
        finders: how other kinds than generations have ended, see jobs/webhook_ends.py.
    """

    def __init__(
        self, redis: Client, settings: Settings, finders: Mapping[str, Finder] | None = None
    ) -> None:
        self.redis = redis
        self.settings = settings
        self.ends = Ends(redis, finders or {})
        self.scripts = Scripts(redis)
        self.slots = Slots()
        self.experience = Experience()
        self._due = DueHooks(redis)
        self.functions: Sequence[Function] = [
            func(self.deliver, name=NAME, timeout=2 * LEASE_S, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        """Return attempts to make now, after a look at ends that nobody has noted."""
        now_ms = await clock_ms(self.redis)
        await self.ends.look(now_ms)
        now_ms = await clock_ms(self.redis)  # what has become due by that is due now
        # An id for each second: that of a process which died is taken for a while.
        return [
            Job(NAME, tuple(due), f"hook:{due.subject_id}:{now_ms // 1000}")
            for due in await self._due.find(now_ms)
        ]

    async def deliver(self, ctx: dict[Any, Any], subject_id: str, place: str) -> None:
        """Make one attempt, unless another one is being made, or was; then others at this place.

        Where no slot is free, it is found due again.
        """
        until_s = time.monotonic() + IN_A_ROW_S
        try:
            # One that goes well is followed by the next: a look each second would be four a second.
            while subject_id:
                is_well = await self._in_slot(subject_id, place) and time.monotonic() < until_s
                subject_id = await self._next(place) if is_well else ""
        except Unavailable:
            pass  # what has been taken is due again when its lease has run out

    async def _in_slot(self, subject_id: str, place: str) -> bool:
        """Make one attempt, if a slot is free; False: it was not made, or has failed."""
        owner, _ = keys.split_hook_place(place)
        is_repeat = await self._is_repeat(subject_id)
        hope = Hope.LITTLE if is_repeat else self.experience.of(place, time.monotonic())
        if not self.slots.take(owner, hope):
            return False
        try:
            return await self._deliver(subject_id, place)
        finally:
            self.slots.free(owner, hope)

    async def _is_repeat(self, subject_id: str) -> bool:
        with translated():
            tries: bytes | None = await self.redis.hget(keys.hook(subject_id), "tries")  # type: ignore[misc]
        return bool(int(tries or 0))

    async def _next(self, place: str) -> str:
        """Return one of the next that are due at a place; empty: none is."""
        with translated():
            now_ms = await clock_ms(self.redis)
            found: list[bytes] = await self.redis.zrangebyscore(
                keys.hooks_due(place), "-inf", now_ms, start=0, num=2 * TO_ONE_HOST_MAX
            )
        return random.choice(found).decode() if found else ""

    async def _deliver(self, subject_id: str, place: str) -> bool:
        """Make one attempt; False: it was not wanted, or has failed."""
        _, host = keys.split_hook_place(place)
        names = [keys.hook(subject_id), keys.hooks_due(place), keys.hooks_busy(host)]
        taken = [subject_id, round(LEASE_S * 1000), TO_ONE_HOST_MAX]
        number = int(await self.scripts.run("hook_take", names, taken))
        record = await read_record(self.redis, subject_id) if number else None
        if record is None or record.webhook is None:
            return False
        reply = await self._attempt(subject_id, record.webhook, record.body)
        self.experience.note(place, time.monotonic(), is_well=reply.is_delivered)
        pause_s = None if reply.is_delivered else pause_after(number, reply)
        result = "delivered" if reply.is_delivered else "given_up"
        kept_ms = round(max(DONE_KEPT_S, 4 * self.settings.retention_s) * 1000)
        again = "" if pause_s is None else round(pause_s * 1000)
        said = [subject_id, number, again, kept_ms, result]
        is_news = bool(await self.scripts.run("hook_settle", names, said))
        await self._tell(subject_id, host, reply, number, pause_s, is_news)
        return reply.is_delivered

    async def _attempt(self, subject_id: str, webhook: Webhook, body: bytes) -> Reply:
        is_allowed = self.settings.webhook_private == "allow"
        headers = {"content-type": "application/json", "user-agent": "tailrace"}
        try:
            headers |= signed(subject_id, webhook, body, int(time.time()))
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
