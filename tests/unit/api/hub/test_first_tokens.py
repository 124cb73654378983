"""The time to the first token, as one node sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from api.hub.first_tokens import TOGETHER_S
from shared.log.events import Reasoning, Start, Token
from tests.support.hub_harness import GENERATION, HubHarness, settle


class Scene(HubHarness):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, float]] = []
        self.hub.first_tokens.observe = lambda model, seconds: self.seen.append((model, seconds))

    def expect(self) -> None:
        self.hub.first_tokens.expect(GENERATION, "m")

    async def say(self, *events: object) -> None:
        self.log.append(*events)  # type: ignore[arg-type]
        await settle()

    async def open(self) -> None:
        meta = await self.log.meta(GENERATION)
        assert meta is not None
        await self.hub.hold(meta)
        await settle()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene


async def test_the_first_token_is_measured_from_the_arrival_of_the_prompt(scene: Scene) -> None:
    scene.expect()
    scene.log.create()
    await scene.open()
    await scene.say(Start(1, "m"), Reasoning("hm"))
    scene.clock.s += 2.5
    await scene.say(Token("a"))
    scene.clock.s += 1.0
    await scene.say(Token("b"))

    assert scene.seen == [("m", 2.5)]
    relay = scene.hub.relays[GENERATION]
    assert relay.individual_readers == set(), "later tokens cost nothing"


async def test_a_log_that_is_opened_late_with_a_token_in_it_is_not_measured(scene: Scene) -> None:
    scene.expect()
    scene.log.create()
    await scene.say(Start(1, "m"), Token("a"))
    scene.clock.s += 2 * TOGETHER_S
    await scene.open()
    await scene.say(Token("b"))

    assert scene.seen == []


async def test_a_token_that_came_before_the_reader_was_ready_is_measured(scene: Scene) -> None:
    scene.expect()
    scene.log.create()
    await scene.say(Start(1, "m"), Token("a"))
    scene.clock.s += TOGETHER_S / 2
    await scene.open()

    assert scene.seen == [("m", TOGETHER_S / 2)]


async def test_an_answer_of_another_node_is_not_measured(scene: Scene) -> None:
    scene.log.create()
    await scene.open()
    await scene.say(Start(1, "m"), Token("a"))

    assert scene.seen == []
