"""Wakes the workers of subscriptions to streams: delivers webhooks, and ends leases.

Redis has for each subscription when to look at it (shared/streams/subscriptions.py): at once when a
wake has begun, when its lease runs out, and every `LOOK_S`, because a node may have died before it
began a wake. A process takes a subscription for one look by moving that time. A webhook is tried
again with growing pauses until its lease runs out; then the next wake has a webhook of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
from arq.worker import Function, func

from jobs.connector import ATTEMPT_S, REPLY_BYTES_MAX, open_session
from jobs.source import Job
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.redis import stream_keys
from shared.redis.client import Client, translated
from shared.streams.signing import Signer, load_signer
from shared.streams.store import StreamStore
from shared.streams.subscriptions import LOOK_S, Subscription, Subscriptions

log = logging.getLogger(__name__)

NAME = "wake_stream_subscription"
AT_ONCE = 100  # subscriptions that one question finds
TAKEN_S = ATTEMPT_S + 5.0  # no other process looks at a subscription meanwhile
RETRY_S, RETRY_S_MAX, JITTER = 1.0, 60.0, 0.2
EXPIRY_MARGIN_S = 0.05  # behind the end of a lease, for the clocks of two machines
REPLY_S = 5.0  # for the body of a response


class StreamWakes:
    """The looks at subscriptions of one jobs process."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self.redis = redis
        self.settings = settings
        self.subscriptions = Subscriptions(StreamStore(redis, settings))
        self._signer: Signer | None = None
        self.functions: Sequence[Function] = [
            func(self.look, name=NAME, timeout=2 * TAKEN_S, max_tries=1)
        ]

    async def due(self) -> list[Job]:
        """Return the looks that are due."""
        now_ms = time.time_ns() // 1_000_000
        with translated():
            found = await self.redis.zrangebyscore(
                stream_keys.WAKES, "-inf", now_ms, start=0, num=AT_ONCE
            )
            for member in found:  # a process that dies looks again later
                await self.redis.zadd(
                    stream_keys.WAKES, {member: now_ms + round(TAKEN_S * 1000)}, xx=True
                )
        return [
            Job(NAME, tuple(member.decode().split(" ", 1)), f"wake:{member.decode()}:{now_ms}")
            for member in found
        ]

    async def look(self, ctx: dict[Any, Any], owner: str, sub_id: str) -> None:
        """Begin a wake if there is work, deliver its webhook, and say when to look again."""
        with suppress(Unavailable):  # then it is looked at again after `TAKEN_S`
            again_s = await self._look(owner, sub_id)
            if again_s is None:
                with translated():
                    await self.redis.zrem(stream_keys.WAKES, f"{owner} {sub_id}")
            else:
                await self.subscriptions.look_at(owner, sub_id, again_s)

    async def _look(self, owner: str, sub_id: str) -> float | None:
        """Return after how many seconds to look again; None: the subscription is gone."""
        await self.subscriptions.wake(owner, sub_id)
        found = await self.subscriptions.get(owner, sub_id)
        if found is None:
            return None
        if not found.wake_id:
            return LOOK_S
        left_s = found.until_ms / 1000 - time.time() + EXPIRY_MARGIN_S
        again_s = min(LOOK_S, max(EXPIRY_MARGIN_S, left_s)) if found.until_ms else LOOK_S
        if found.config.type != "webhook" or found.is_delivered:
            return again_s
        is_done = await self._deliver(found)
        if is_done is None:
            pause_s = min(RETRY_S_MAX, RETRY_S * (1 << min(found.retries, 10)))
            return min(again_s, pause_s * random.uniform(1 - JITTER, 1 + JITTER))
        return 0.0 if is_done else again_s

    async def _deliver(self, found: Subscription) -> bool | None:
        """Call the webhook; return whether the receiver is done; None: the call failed."""
        body = msgspec.json.encode(
            {
                "subscription_id": found.id, "wake_id": found.wake_id,
                "generation": found.generation,
                "streams": [link.fields() for link in found.links],
                "callback_url": f"{found.base}/__ds/subscriptions/{found.id}/callback",
                "callback_token": found.token(found.generation),
            }
        )  # fmt: skip
        answer = await self._call(found, body)
        key = stream_keys.subscription(found.owner, found.id)
        is_well = answer is not None
        retries = 0 if is_well else found.retries + 1
        fields: dict[Any, Any] = {"status": "active" if is_well else "failed", "retries": retries}
        if is_well:
            fields["delivered"] = "1"
        with translated():
            if await self.redis.exists(key):
                await self.redis.hset(key, mapping=fields)  # type: ignore[misc]
        if answer is None:
            log.warning("stream webhook failed", extra={"retries": retries})
            return None
        if answer.get("done") is not True:
            return False
        await self.subscriptions.act(
            found.owner, found.id, "auto", generation=found.generation, wake_id=found.wake_id
        )
        return True

    async def _call(self, found: Subscription, body: bytes) -> dict[str, Any] | None:
        """Return the JSON object with which the receiver answered, perhaps empty; None: no 2xx."""
        if self._signer is None:
            self._signer = await load_signer(self.redis)
        headers = {
            "content-type": "application/json", "user-agent": "tailrace",
            "webhook-signature": self._signer.sign(body, int(time.time())),
        }  # fmt: skip
        is_allowed = self.settings.webhook_private == "allow"
        try:
            async with open_session(is_private_allowed=is_allowed) as session:
                async with asyncio.timeout(ATTEMPT_S):
                    response = await session.post(
                        found.config.url, data=body, headers=headers, allow_redirects=False
                    )
                async with response:
                    if not 200 <= response.status < 300:
                        return None
                    return await _answer_of(response)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None


async def _answer_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the object in a response; empty: it has none, or comes too late."""
    raw = b""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(REPLY_S):
            raw = await response.content.read(REPLY_BYTES_MAX)
    try:
        found = msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return {}
    return found if isinstance(found, dict) else {}
