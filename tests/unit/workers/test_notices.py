"""The subscription of a worker: a server that stands still ends no worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from workers import notices
from workers.notices import receive_notices


class FrozenRedis:
    """Its first connection breaks, and then cannot be closed in time either."""

    def __init__(self) -> None:
        self.opened = 0

    def pubsub(self, **_: Any) -> FrozenRedis:
        self.opened += 1
        return self

    async def subscribe(self, *channels: str) -> None:
        if self.opened == 1:
            raise RedisConnectionError("broken")

    async def get_message(self, timeout: float) -> dict[str, bytes]:  # noqa: ASYNC109
        return {"channel": b"cancel", "data": b"gen_x"}

    async def aclose(self) -> None:
        raise RedisTimeoutError("Timed out closing connection after 1.5")


async def test_a_connection_that_cannot_be_closed_is_opened_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "RECONNECT_PAUSE_S", 0.0)
    redis: Any = FrozenRedis()
    cancelled: list[str] = []

    def on_cancel(generation_id: str) -> None:
        cancelled.append(generation_id)
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(receive_notices(redis, {"cancel": on_cancel}), 10)

    assert (redis.opened, cancelled) == (2, ["gen_x"])
