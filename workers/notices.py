"""Receives over pub/sub which generations were cancelled, and which audio inputs have grown.

A message can be missed during a reconnect. That is safe: the next append or lease renewal of a
cancelled generation is answered *ended*, and a reader of audio also looks by itself. Knows no runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping

from redis.exceptions import RedisError

from shared.redis.client import Client

MESSAGE_WAIT_S = 1.0  # how long redis-py waits for a message in one call
RECONNECT_PAUSE_S = 0.25  # mean pause before a new subscription


async def receive_notices(redis: Client, listeners: Mapping[str, Callable[[str], None]]) -> None:
    """Call the listener of a channel with the id in each of its messages, until cancelled."""
    while True:
        pubsub = redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(*listeners)
            while True:
                message = await pubsub.get_message(timeout=MESSAGE_WAIT_S)
                if message:
                    listeners[message["channel"].decode()](message["data"].decode())
        except (RedisError, OSError):
            await asyncio.sleep(RECONNECT_PAUSE_S * random.uniform(0.5, 1.5))
        finally:
            # To a server that stands still, redis-py's own close takes too long and raises.
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
