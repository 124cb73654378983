"""Cancels at random moments of a generation: each generation has exactly one end.

Workers in this process use a real server. The cancel comes while the generation is queued, begun,
streaming, finishing, released after a failure, or abandoned by a killed worker. It comes once,
twice or never; without a cancel the generation must complete. Random numbers choose the schedule,
and the machine decides the races. Row 15 of the fault table.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import accumulate
from random import Random

from shared.errors import BackendError
from shared.log.events import Token, Usage
from shared.log.ids import START
from shared.log.request import Request
from shared.queue.endings import cancel
from shared.queue.janitor import Janitor
from shared.queue.overview import queue_depths
from shared.redis import keys
from tests.support.examples import examples
from tests.support.full_speed import full_speed
from tests.support.wait import until
from tests.support.worker_harness import DEADLINE_S, WorkerHarness
from workers.backends.contract import BackendItem, Finish
from workers.failures import failed_attempt

RACES = examples(400, in_ci=1_000)
AT_ONCE = 25
KILL_EVERY = 50
LATEST_S = 0.05  # a little longer than most generations take here
LATEST_END_S = 25.0  # earlier than the janitor would mend a lost generation


class RacingBackend:
    """Streams the words of its number at its own pace, and sometimes fails once."""

    can_continue = True
    counts_whole = True

    def __init__(self) -> None:
        self.open = 0

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        number = int(request.messages[0]["content"])
        rng = Random(f"{number} {len(prefix)}")
        self.open += 1
        try:
            for word, upto in zip(words(number), accumulate(words(number)), strict=True):
                if len(upto) <= len(prefix):
                    continue
                for _ in range(rng.randrange(8)):
                    await asyncio.sleep(0)
                yield [Token(upto[max(len(prefix), len(upto) - len(word)) :])]
                if not prefix and rng.random() < 0.1:
                    raise BackendError("upstream_error", "as it was told to")
            yield [Usage(1, 2, 3), Finish("stop")]
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Holds no resources."""


def words(number: int) -> list[str]:
    return [f"{number}.{n} " for n in range(Random(f"words {number}").randrange(6))]


async def race(harness: WorkerHarness, number: int) -> str:
    """Run one generation and its cancels, and return its end."""
    rng = Random(f"race {number}")
    request = json.dumps({"messages": [{"role": "user", "content": str(number)}]}).encode()
    generation_id = await harness.ask(request=request)

    async def cancel_once() -> None:
        moment_s = rng.choice((0.0, rng.uniform(0.0, LATEST_S)))
        await asyncio.sleep(moment_s)  # the schedule itself: no condition to wait for
        meta = await cancel(harness.store, generation_id)
        assert meta is not None and meta.is_ended, "after a cancel it is over"

    cancels = rng.choice((0, 1, 1, 1, 2, 2))
    await asyncio.gather(*(cancel_once() for _ in range(cancels)))

    async def is_over() -> bool:
        meta = await harness.store.meta(generation_id)
        return meta is not None and meta.is_ended

    if not cancels:
        await until(is_over, LATEST_END_S, f"the end of {generation_id}")
    return await audit(harness, generation_id, "".join(words(number)))


async def audit(harness: WorkerHarness, generation_id: str, whole: str) -> str:
    meta = await harness.store.meta(generation_id)
    assert meta is not None
    log = await harness.store.page(generation_id, START, 100)
    assert [event_id.seq for event_id, _ in log] == list(range(1, len(log) + 1))
    events = [json.loads(raw) for _, raw in log]
    assert [event["type"] for event in events].count("end") == 1
    assert (log[-1][1], events[-1]["status"]) == (meta.end, meta.status)
    text = "".join(event.get("text", "") for event in events)
    assert text == whole if meta.status == "completed" else whole.startswith(text)
    return meta.status


async def test_every_cancelled_answer_has_one_end_and_no_remains(
    redis_server, real_redis, monkeypatch
):
    monkeypatch.setattr(failed_attempt, "RETRY_PAUSE_S", 0.01)
    backend, ends = RacingBackend(), Counter[str]()
    with full_speed():
        await run_races(redis_server.url, backend, ends)
    assert sum(ends.values()) == RACES
    assert set(ends) == {"completed", "cancelled"}
    assert min(ends.values()) > RACES / 20, f"hardly a race: {ends}"


async def run_races(url: str, backend: RacingBackend, ends: Counter[str]) -> None:
    async with WorkerHarness(url, lease_s=0.3) as harness:
        harness.backends = {"m": backend}  # type: ignore[dict-item]
        await harness.start("keeper")
        for start in range(0, RACES, AT_ONCE):
            if start % KILL_EVERY == 0:
                await harness.start("victim")
            races = [
                asyncio.create_task(race(harness, number))
                for number in range(start, start + AT_ONCE)
            ]
            if start % KILL_EVERY == KILL_EVERY - AT_ONCE:
                # On a busy machine the races may all be over before anybody looks.
                await until(
                    lambda races=races: backend.open or all(each.done() for each in races),
                    DEADLINE_S, "somebody streams, or no race is left",
                )  # fmt: skip
                await harness.kill("victim")
            ends.update(await asyncio.gather(*races))

        async def nothing_is_left() -> bool:
            lanes = [await harness.redis.xlen(keys.lane(lane)) for lane in keys.LANES]
            depths = await queue_depths(harness.store)
            # The janitor removes late index entries.
            assert not any((*lanes, depths["later"], backend.open)), (lanes, depths)
            return True

        await until(nothing_is_left, LATEST_END_S, "empty queues and backends")
        hurried = replace(harness.settings, queue_wait_s=0.01, lease_s=0.01)
        janitor = Janitor(harness.redis, harness.store, hurried)

        async def nothing_is_listed() -> bool:
            await janitor.sweep()
            return not any((await queue_depths(harness.store)).values())

        await until(nothing_is_listed, DEADLINE_S, "empty indexes")
