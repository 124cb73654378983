"""The kind `responses` in background mode: broken connections, other workers, cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Token, Upstream
from shared.log.request import Request
from tests.support.background_server import BackgroundServer
from tests.support.upstream_script import expected_text
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.background import AnswerGone, BackgroundBackend
from workers.backends.contract import BackendItem, Finish

DEADLINE_S = 10.0


@pytest.fixture
async def server() -> AsyncIterator[BackgroundServer]:
    async with BackgroundServer().serve() as server:
        yield server


@pytest.fixture
async def backend(server: BackgroundServer) -> AsyncIterator[BackgroundBackend]:
    backend = backend_of(server)
    yield backend
    await backend.aclose()


def backend_of(server: BackgroundServer, **members: Any) -> BackgroundBackend:
    model = Model(name="m", backend="responses", base_url=server.base_url, **members)
    backend = build_backends({"m": model}, Settings(), {})["m"]
    assert isinstance(backend, BackgroundBackend)
    return backend


def prompt_of(**script: Any) -> str:
    return msgspec.json.encode({"tokens": 20, **script}).decode()


def asking(**script: Any) -> Request:
    return Request([{"role": "user", "content": prompt_of(**script)}])


async def read(stream: Any) -> list[BackendItem]:
    async with asyncio.timeout(DEADLINE_S), aclosing(stream):
        return [item async for items in stream for item in items]


def text_of(items: list[BackendItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the worker's messages; asyncio may say that a loaded machine is slow."""
    return [record.message for record in caplog.records if record.name.startswith("workers")]


async def test_the_name_of_the_answer_comes_first(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    items = await read(backend.stream(asking(), prefix="", seed="s", form=""))

    assert items[0] == Upstream("resp_1")
    assert text_of(items) == expected_text(prompt_of())
    body = server.made[0].body
    assert (body["background"], body["store"], body["stream"]) == (True, True, True)


@pytest.mark.parametrize("fault", ["cut", "eof"])
async def test_a_broken_connection_costs_nothing(
    server: BackgroundServer, backend: BackgroundBackend, fault: str
) -> None:
    script = {"fault": fault, "fault_at": 7}
    items = await read(backend.stream(asking(**script), prefix="", seed="s", form=""))

    assert text_of(items) == expected_text(prompt_of(**script))
    assert isinstance(items[-1], Finish) and items[-1].reason == "stop"
    assert len(server.made) == 1
    # created, in_progress, the item, and seven texts have come: the last number is 9.
    assert server.reads == [("resp_1", 9)]


async def test_the_answer_goes_on_without_a_connection_and_is_read_again(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    async with aclosing(
        backend.stream(asking(delay_s=0.001), prefix="", seed="s", form="")
    ) as stream:
        async for items in stream:
            if any(isinstance(item, Token) for item in items):
                break
    await until(lambda: server.made[0].status == "completed", DEADLINE_S, "the answer is made")

    items = await read(backend.attach("resp_1", seed="s"))

    assert text_of(items) == expected_text(prompt_of(delay_s=0.001))
    assert isinstance(items[-1], Finish)
    assert (len(server.made), server.cancels) == (1, [])


async def test_cancel_stops_the_server(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    stream = backend.stream(asking(fault="stall", fault_at=3), prefix="", seed="s", form="")
    async with aclosing(stream):
        async for items in stream:
            if any(isinstance(item, Token) for item in items):
                break
    await backend.cancel("resp_1")

    assert server.made[0].status == "cancelled"
    with pytest.raises(AnswerGone):
        await read(backend.attach("resp_1", seed="s"))


async def test_a_cancel_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with BackgroundServer().serve() as other:
        backend = backend_of(other)
    await backend.cancel("resp_1")
    await backend.aclose()

    assert logged(caplog) == ["cancel at the model server failed"]


async def test_a_cancel_of_an_answer_that_is_over_is_no_failure(
    server: BackgroundServer, backend: BackgroundBackend, caplog: pytest.LogCaptureFixture
) -> None:
    await backend.cancel("resp_9")

    assert not logged(caplog)


async def test_an_answer_that_is_lost_between_two_connections_can_be_asked_again(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    server.is_forgetful = True
    script = {"fault": "cut", "fault_at": 7}
    with pytest.raises(BackendError, match="not found") as caught:
        await read(backend.stream(asking(**script), prefix="", seed="s", form=""))

    assert (caught.value.code, caught.value.retryable) == ("upstream_error", True)
    assert caught.value.upstream is None


async def test_an_answer_that_the_server_has_lost_is_gone(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    with pytest.raises(AnswerGone, match="not found"):
        await read(backend.attach("resp_7", seed="s"))


async def test_a_failed_answer_fails_the_attempt_and_is_gone_for_the_next(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    stream = backend.stream(asking(fault="error", fault_at=3), prefix="", seed="s", form="")
    with pytest.raises(BackendError, match="the upstream broke as told") as caught:
        await read(stream)
    assert not isinstance(caught.value, AnswerGone)

    with pytest.raises(AnswerGone, match="the upstream broke as told"):
        await read(backend.attach("resp_1", seed="s"))


async def test_a_server_that_is_away_does_not_make_the_answer_gone(
    server: BackgroundServer,
) -> None:
    async with BackgroundServer().serve() as other:
        backend = backend_of(other)
    with pytest.raises(BackendError) as caught:
        await read(backend.attach("resp_1", seed="s"))
    await backend.aclose()

    assert caught.value.is_outage and not isinstance(caught.value, AnswerGone)


async def test_a_server_that_refuses_the_mode_is_asked_without_it(
    server: BackgroundServer, backend: BackgroundBackend
) -> None:
    server.has_mode = False
    for _ in range(2):
        items = await read(backend.stream(asking(), prefix="", seed="s", form=""))
        assert text_of(items) == expected_text(prompt_of())
        assert not any(isinstance(item, Upstream) for item in items)

    assert ["background" in made.body for made in server.made] == [False, False]
    assert all(made.body["store"] is False for made in server.made)


async def test_the_models_file_turns_the_mode_off(server: BackgroundServer) -> None:
    backend = backend_of(server, rules=RequestRules(set={"background": False, "store": False}))
    items = await read(backend.stream(asking(), prefix="", seed="s", form=""))
    await backend.aclose()

    assert not any(isinstance(item, Upstream) for item in items)
    assert server.made[0].body["background"] is False
