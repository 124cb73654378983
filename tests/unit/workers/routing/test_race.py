"""Two requests of which the first to speak gives the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from shared.log.events import Progress, Token
from workers.backends.contract import Finish
from workers.routing.call import Call, Items
from workers.routing.race import Race

AT_ONCE_S = 0.0


class FakeCall:
    """A request that waits for its gate, and then says its texts.

    Args:
        stage: what its stages do before the backend is asked: they give this progress, and wait.
    """

    def __init__(
        self, gate: asyncio.Event, *texts: str, stage: tuple[Progress, asyncio.Event] | None = None
    ) -> None:
        self.gate, self.texts, self.stage = gate, texts, stage
        self.is_closed = self.is_asked = self.is_finished = False
        self.on_asked: Callable[[], None] = lambda: None

    async def read(self) -> AsyncGenerator[Items, None]:
        try:
            if self.stage is not None:
                yield [self.stage[0]]
                await self.stage[1].wait()
            self.is_asked = True
            self.on_asked()
            yield []
            await self.gate.wait()
            for text in self.texts:
                yield [Token(text)]
                await asyncio.sleep(0)  # the other request speaks in between
            yield [Finish("stop")]
        finally:
            self.is_closed = True


async def run(first: FakeCall, second: FakeCall) -> list[tuple[FakeCall, Items]]:
    async def ask_second() -> Call | None:
        return cast(Call, second)

    async with asyncio.TaskGroup() as group:
        race = Race(group.create_task, AT_ONCE_S, ask_second)
        got: list[Any] = [pair async for pair in race.read(cast(Call, first))]
    return [(call, items) for call, items in got if items]


async def test_nothing_of_the_loser_is_given_although_both_speak_at_once() -> None:
    gate = asyncio.Event()
    first, second = FakeCall(gate, "a", "b", "c"), FakeCall(gate, "x", "y", "z")
    asyncio.get_running_loop().call_later(0.01, gate.set)

    got = await run(first, second)

    assert len({call for call, _ in got}) == 1
    winner = got[0][0]
    assert [item.text for _, (item,) in got if isinstance(item, Token)] == [*winner.texts]
    assert first.is_closed and second.is_closed


async def test_the_silence_begins_when_the_first_backend_is_asked() -> None:
    never, gate, has_read = asyncio.Event(), asyncio.Event(), asyncio.Event()
    gate.set()
    progress = Progress("pdf_parsing", 1, 1, 100.0)
    first = FakeCall(never, "a", stage=(progress, has_read))
    second = FakeCall(gate, "x", stage=(progress, gate))
    asked: list[bool] = []

    async def ask_second() -> Call | None:
        asked.append(first.is_asked)
        return cast(Call, second)

    async with asyncio.TaskGroup() as group:
        race = Race(group.create_task, AT_ONCE_S, ask_second)
        got: list[Any] = []
        async for call, items in race.read(cast(Call, first)):
            got += [(call, item) for item in items]
            # Many turns of the loop, in which a clock that ran already would end.
            for _ in range(20):
                await asyncio.sleep(0)
            has_read.set()

    assert asked == [True]
    assert got == [(first, progress), (second, Token("x")), (second, Finish("stop"))]


async def test_the_winner_is_read_to_its_end_while_the_loser_is_closed() -> None:
    never, gate = asyncio.Event(), asyncio.Event()
    gate.set()
    first, second = FakeCall(never, "a"), FakeCall(gate, *map(str, range(100)))

    got = await run(first, second)

    assert len(got) == 101 and {call for call, _ in got} == {second}
    assert first.is_closed
