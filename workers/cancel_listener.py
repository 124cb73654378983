"""Receives the ids of cancelled generations over pub/sub.

A message can be missed during a reconnect. That is safe: the next append or lease renewal of the
generation is answered *ended*. Knows no runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from redis.exceptions import RedisError

from shared.redis import keys
from shared.redis.client import Client

MESSAGE_WAIT_S = 1.0  # how long redis-py waits for a message in one call
RECONNECT_PAUSE_S = 0.25  # mean pause before a new subscription


async def receive_cancels(redis: Client, on_cancel: Callable[[str], None]) -> None:
    """Call `on_cancel` with the id of each cancelled generation, until cancelled."""
    while True:
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(keys.CANCEL)
            while True:
                message = await pubsub.get_message(timeout=MESSAGE_WAIT_S)
                if message:
                    on_cancel(message["data"].decode())
        except (RedisError, OSError):
            await asyncio.sleep(RECONNECT_PAUSE_S * random.uniform(0.5, 1.5))
        finally:
            # To a server that stands still, redis-py's own close takes too long and raises.
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
