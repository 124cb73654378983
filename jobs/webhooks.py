"""Delivers webhooks, each at least once, with retries over hours.

Redis holds the due deliveries (shared/later/webhooks.py). A process takes one for one attempt,
under a lease: if the process is killed, the delivery becomes due again. Owners take turns, then the
hosts of each owner (jobs/webhook_due.py). Only a few attempts run for each host and each owner
(jobs/webhook_slots.py), so that silent receivers do not delay the others. Invariant: no log line
holds a URL or a secret, only the host.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from arq.worker import Function, func

from jobs.connector import ATTEMPT_S, BODY_WAIT_S, REPLY_BYTES_MAX, AddressRefused, open_session
from jobs.source import Job
from jobs.webhook_due import TO_ONE_HOST_MAX, DueHooks
from jobs.webhook_ends import Ends, Finder
from jobs.webhook_slots import Experience, Hope, WebhookSlots
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.later.dead_letters import DEAD_MAX
from shared.later.webhooks import Webhook, read_record, signed
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.counts import count
from shared.redis.scripts import Scripts

log = logging.getLogger(__name__)

NAME = "deliver_webhook"
# Between two attempts, by the number of the attempt before.
DELIVERY_PAUSES_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0)
RETRY_AFTER_S_MAX = 86_400.0  # the longest pause that a receiver may ask for
JITTER = 0.2  # of a pause, at most, in addition
LEASE_S = ATTEMPT_S + 5.0  # of one attempt
DONE_KEPT_S = 86_400.0  # a finished record is kept this long, so that no repeat delivers again
IN_A_ROW_S = 5.0  # one job delivers to one place for this long, then others have their turn
GONE = 410  # the status by which a receiver refuses all further attempts


class Reply(NamedTuple):
    """The result of an attempt; status 0: no response, see `reason`."""

    status: int
    retry_after_s: float = 0.0
    reason: str = ""

    @property
    def is_delivered(self) -> bool:
        return 200 <= self.status < 300

    @property
    def told(self) -> str:
        """What an operator reads: the status, or why no response came."""
        return str(self.status) if self.status else self.reason


class Webhooks:
    """The deliveries of one jobs process.

    Args:
        finders: by kind, for subjects other than generations: see jobs/webhook_ends.py.
    """

    def __init__(
        self, redis: Client, settings: Settings, finders: Mapping[str, Finder] | None = None
    ) -> None:
        self.redis = redis
        self.settings = settings
        self.ends = Ends(redis, finders or {})
        self.scripts = Scripts(redis)
        self.slots = WebhookSlots()
        self.experience = Experience()
        self._due = DueHooks(redis)
        self.functions: Sequence[Function] = [
            func(self.deliver, name=NAME, timeout=2 * LEASE_S, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        """Return the attempts to make now, after a check for ends that were not noted."""
        now_ms = await clock_ms(self.redis)
        await self.ends.check(now_ms)
        now_ms = await clock_ms(self.redis)  # the check may have made more due
        # A new job id each second: arq reserves the id of a dead process for a while.
        return [
            Job(NAME, tuple(due), f"hook:{due.subject_id}:{now_ms // 1000}")
            for due in await self._due.find(now_ms)
        ]

    async def deliver(self, ctx: dict[Any, Any], subject_id: str, place: str) -> None:
        """Make one attempt, unless it is running or done elsewhere; then more at the same place.

        If no slot is free, the delivery stays due.
        """
        until_s = time.monotonic() + IN_A_ROW_S
        try:
            # Continue after a success: one poll a second alone would mean four deliveries a second.
            while subject_id:
                is_well = await self._in_slot(subject_id, place) and time.monotonic() < until_s
                subject_id = await self._next(place) if is_well else ""
        except Unavailable:
            pass  # a taken delivery is due again when its lease expires

    async def _in_slot(self, subject_id: str, place: str) -> bool:
        """Make one attempt if a slot is free; False: it was not made, or failed."""
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
        """Return a due subject of a place, chosen at random; empty: none is due."""
        with translated():
            now_ms = await clock_ms(self.redis)
            found: list[bytes] = await self.redis.zrangebyscore(
                keys.hooks_due(place), "-inf", now_ms, start=0, num=2 * TO_ONE_HOST_MAX
            )
        return random.choice(found).decode() if found else ""

    async def _deliver(self, subject_id: str, place: str) -> bool:
        """Make one attempt; False: the delivery is not due any more, or the attempt failed."""
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
        outcome = [subject_id, number, again, kept_ms, result, DEAD_MAX, reply.told]
        is_settled = bool(await self.scripts.run("hook_settle", [*names, keys.HOOKS_DEAD], outcome))
        await self._report(subject_id, host, reply, number, pause_s, is_settled)
        return reply.is_delivered

    async def _attempt(self, subject_id: str, webhook: Webhook, body: bytes) -> Reply:
        is_allowed = self.settings.webhook_private == "allow"
        headers = {"content-type": "application/json", "user-agent": "tailrace"}
        try:
            headers |= signed(subject_id, webhook, body, int(time.time()))
            async with open_session(is_private_allowed=is_allowed) as session:
                async with asyncio.timeout(ATTEMPT_S):
                    response = await session.post(
                        webhook.url, data=body, headers=headers, allow_redirects=False
                    )
                await _take_body(response)
                return Reply(response.status, retry_after_s(response.headers))
        except TimeoutError:
            return Reply(0, reason="timeout")
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Reply(0, reason="address" if _is_refused(exc) else type(exc).__name__)

    async def _report(
        self,
        subject_id: str,
        host: str,
        reply: Reply,
        number: int,
        pause_s: float | None,
        is_settled: bool,
    ) -> None:
        """Count and log the result; `is_settled`: no later attempt has been made."""
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
                "webhooks_given_up": int(pause_s is None and is_settled),
            },
        )
        data |= {"reason": reply.reason, "again_s": pause_s}
        if pause_s is None:
            log.warning("webhook given up", extra=data)
        else:
            log.warning("webhook failed", extra=data)


def pause_after(number: int, reply: Reply) -> float | None:
    """Return the pause after attempt `number`, s; None: no further attempt."""
    if reply.status == GONE or number > len(DELIVERY_PAUSES_S):
        return None
    pause_s = max(DELIVERY_PAUSES_S[number - 1], min(reply.retry_after_s, RETRY_AFTER_S_MAX))
    return pause_s * random.uniform(1.0, 1.0 + JITTER)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Parse Retry-After, seconds or a date; 0: absent or malformed."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return 0.0


async def _take_body(response: aiohttp.ClientResponse) -> None:
    """Read the body if it comes at once, so that the receiver can write it; then hang up.

    The status is the receiver's answer. A body that is slow, endless or broken changes nothing.
    """
    async with response:
        with suppress(TimeoutError, EOFError, aiohttp.ClientError, OSError):
            async with asyncio.timeout(BODY_WAIT_S):
                await response.content.readexactly(REPLY_BYTES_MAX)


def _is_refused(exc: BaseException) -> bool:
    return isinstance(exc, AddressRefused) or isinstance(
        getattr(exc, "os_error", None), AddressRefused
    )
