"""A worker dies in mid-answer: the next one continues, in the way that the kind has."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.ids import START
from shared.log.store import Store
from shared.queue.continuations import HOLDING, Verdict, store_verdict
from tests.support.client import Client
from tests.support.kinds import TRIED
from tests.support.kinds.kind import TriedKind
from tests.support.processes import Deployment
from tests.support.upstream import expected_text
from tests.support.wait import until

pytestmark = pytest.mark.usefixtures("one_loop")

DEADLINE_S = 30.0
TOKENS = 60
# The kinds of this list continue; `openai` has its own tests in tests/faults.
KINDS = ("completions", "ollama", "websocket")


async def entries_of(store: Store, generation_id: str) -> list[dict[str, Any]]:
    page = await store.page(generation_id, START, 1_000)
    return [msgspec.json.decode(raw) for _, raw in page]


@pytest.mark.parametrize("name", KINDS)
async def test_the_next_worker_continues_the_answer_of_a_killed_one(name: str) -> None:
    kind = TRIED[name]
    prompt = msgspec.json.encode({"tokens": TOKENS, "delay_s": 0.03}).decode()
    async with kind.serve() as server:
        models = f'[models.m]\nbackend = "{name}"\nbase_url = "{server.base_url}"\n'
        async with Deployment(api=1, workers=1, models=models) as deployment:
            redis = deployment.redis()
            await verify(redis, kind, server.base_url)
            async with Client(deployment.urls) as client:
                started = await client.start({"model": "m", "prompt": prompt})
                store = Store(redis, Settings(redis_url=deployment.server.url))

                async def has_begun() -> bool:
                    found = await entries_of(store, started["id"])
                    return sum(entry["type"] == "token" for entry in found) > 5

                await until(has_begun, DEADLINE_S, "some tokens")
                await until(lambda: deployment.workers[0].is_running, DEADLINE_S, "the worker")
                deployment.workers[0].kill()
                await deployment.add_worker().ready()

                async def has_ended() -> bool:
                    return (await client.snapshot(started["id"]))["status"] == "completed"

                await until(has_ended, DEADLINE_S, f"the end\n{deployment.report()}")
                # The server stops the work for the dead worker.
                await asyncio.wait_for(server.calls[0].left.wait(), DEADLINE_S)
                log = await entries_of(store, started["id"])
            await redis.aclose()

    text = "".join(entry.get("text", "") for entry in log if entry["type"] == "token")
    assert text == expected_text(prompt)
    kinds = [entry["type"] for entry in log]
    assert kinds.count("start") == 2 and "reset" not in kinds
    assert len(server.calls) == 2


async def verify(redis: Redis, kind: TriedKind, url: str) -> None:
    """Store what `doctor --continuation` would: the first form of the kind holds."""
    model = Model(name="m", backend=kind.name, base_url=url)
    if model.kind.continues_always:
        return
    forms = {model.kind.styles[0]: HOLDING[0]}
    await store_verdict(redis, model, Verdict(model="m", forms=forms, at_ms=1))
