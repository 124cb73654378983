"""Scripts beside others, of which one is refused because its slot is moving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest
from redis.exceptions import ResponseError

from shared.errors import Unavailable
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

MOVING = ResponseError("TRYAGAIN Multiple keys request during rehashing of slot")


class Pipeline:
    """Gives the prepared replies; `sizes` has the number of calls of each exchange."""

    losses = 0

    def __init__(self, *exchanges: list[Any]) -> None:
        self._exchanges = list(exchanges)
        self.sizes: list[int] = []

    async def evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        self.sizes.append(len(calls))
        return self._exchanges.pop(0)

    async def run(self, commands: Sequence[Any]) -> list[Any]:
        raise AssertionError("no plain command is needed")


async def run_all(pipeline: Pipeline, count: int) -> list[Any]:
    redis = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    try:
        scripts = Scripts(redis, pipeline)
        return await scripts.run_all([("seal", ([f"{{{n}}}"], [])) for n in range(count)])
    finally:
        await redis.aclose()


async def test_the_refused_one_runs_again_alone_where_it_may_wait_longer() -> None:
    pipeline = Pipeline([b"one", MOVING, b"three"], [b"two"])

    assert await run_all(pipeline, 3) == [b"one", b"two", b"three"]
    assert pipeline.sizes == [3, 1]


async def test_a_script_alone_has_waited_already() -> None:
    pipeline = Pipeline([MOVING])

    with pytest.raises(Unavailable, match="TRYAGAIN"):
        await run_all(pipeline, 1)
    assert pipeline.sizes == [1]


async def test_another_refusal_is_not_repeated() -> None:
    pipeline = Pipeline([b"one", ResponseError("OOM command not allowed")])

    with pytest.raises(Unavailable, match="OOM"):
        await run_all(pipeline, 2)
    assert pipeline.sizes == [2]
