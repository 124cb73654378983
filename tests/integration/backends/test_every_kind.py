"""One suite for every kind of backend, each against a server that speaks its real wire."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from shared.config.kinds import KINDS
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from tests.support.cuts import places
from tests.support.kinds import TRIED
from tests.support.kinds.kind import Ability, KindServer, TriedKind
from tests.support.upstream import Script, expected_text
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.contract import Backend, BackendItem, Finish
from workers.backends.reading.answer_reader import AnswerReader

pytestmark = pytest.mark.usefixtures("one_loop")

DEADLINE_S = 10.0  # far more than any of these tests needs
SETTINGS = Settings()  # for tests that make thousands of readers
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
STREAMS = [(name, stream) for name, kind in TRIED.items() for stream in sorted(kind.streams)]


def test_every_kind_with_a_server_is_tried() -> None:
    assert {kind.name for kind in TRIED.values()} == {
        name for name, spec in KINDS.items() if spec.has_server
    }


@pytest.fixture(params=TRIED)
def kind(request: pytest.FixtureRequest) -> TriedKind:
    return TRIED[request.param]


@pytest.fixture
async def server(kind: TriedKind) -> AsyncIterator[KindServer]:
    async with kind.serve() as server:
        yield server


def able(ability: Ability) -> pytest.MarkDecorator:
    """Run a test with the kinds that have an ability."""
    names = [name for name, kind in TRIED.items() if ability in kind.can]
    return pytest.mark.parametrize("kind", names, indirect=True)


READS_BYTES = pytest.mark.parametrize(
    "kind", [name for name, kind in TRIED.items() if kind.reader is not None], indirect=True
)


def backend_of(kind: TriedKind, url: str, **settings: Any) -> Backend:
    model = Model(name="m", backend=kind.name, base_url=url, **kind.members)
    return build_backends({"m": model}, Settings(**settings), {})["m"]


def asking(params: dict[str, Any] | None = None, **script: Any) -> Request:
    """Return a request whose prompt is a script."""
    return Request([{"role": "user", "content": prompt_of(**script)}], params or {})


def prompt_of(**script: Any) -> str:
    return msgspec.json.encode({"tokens": 20, **script}).decode()


async def read(backend: Backend, request: Request, prefix: str = "") -> list[BackendItem]:
    """Read an answer to its end and close the backend; errors of the backend pass through."""
    items: list[BackendItem] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for batch in backend.stream(request, prefix=prefix, seed="s", form=""):
                items += batch
    finally:
        await backend.aclose()
    return items


async def failure_of(backend: Backend, request: Request) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await read(backend, request)
    return caught.value


def text_of(items: list[BackendItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


def usage_of(items: list[BackendItem]) -> Usage:
    return [item for item in items if isinstance(item, Usage)][-1]


# Answers


async def test_an_answer_is_read_to_its_finish(kind: TriedKind, server: KindServer) -> None:
    items = await read(backend_of(kind, server.base_url), asking())

    assert text_of(items) == expected_text(prompt_of())
    assert isinstance(items[-1], Finish) and items[-1].reason == "stop"
    assert sum(isinstance(item, Finish) for item in items) == 1


async def test_the_first_list_says_that_the_server_has_answered(
    kind: TriedKind, server: KindServer
) -> None:
    backend = backend_of(kind, server.base_url)
    async with aclosing(backend.stream(asking(), prefix="", seed="s", form="")) as stream:
        assert await anext(stream) == []
    await backend.aclose()


async def test_several_answers_at_once(kind: TriedKind, server: KindServer) -> None:
    backend = backend_of(kind, server.base_url)
    prompts = [prompt_of(tokens=number) for number in range(1, 9)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(read(backend, Request([{"role": "user", "content": prompt}])))
            for prompt in prompts
        ]

    assert [text_of(task.result()) for task in tasks] == list(map(expected_text, prompts))


@able("reasoning")
async def test_reasoning_comes_apart_from_the_answer(kind: TriedKind, server: KindServer) -> None:
    items = await read(backend_of(kind, server.base_url), asking(reasoning=2))

    thoughts = "".join(item.text for item in items if isinstance(item, Reasoning))
    assert thoughts == " thought0 thought1"
    assert text_of(items) == expected_text(prompt_of(reasoning=2))


@able("tools")
async def test_a_tool_call_ends_the_answer(kind: TriedKind, server: KindServer) -> None:
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": parameters}}
    items = await read(
        backend_of(kind, server.base_url), asking({"tools": [tool]}, tokens=3, tool_call=True)
    )

    calls = [item for item in items if isinstance(item, ToolCall)]
    assert (calls[0].index, calls[0].name) == (0, "look_up") and calls[0].call_id
    arguments = "".join(call.arguments for call in calls)
    assert msgspec.json.decode(arguments) == {"query": "流"}
    assert isinstance(items[-1], Finish) and items[-1].reason == "tool_calls"


@able("usage")
async def test_counts_are_as_openai_counts(kind: TriedKind, server: KindServer) -> None:
    """The prompt has the cached tokens in it, the completion the tokens of the reasoning."""
    thoughts = 3 if "reasoning" in kind.can else 0
    usage = usage_of(await read(backend_of(kind, server.base_url), asking(reasoning=thoughts)))

    assert usage.completion_tokens == 20 + thoughts
    assert usage.prompt_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@able("max_tokens")
async def test_max_tokens_ends_the_answer_as_length(kind: TriedKind, server: KindServer) -> None:
    items = await read(backend_of(kind, server.base_url), asking({"max_tokens": 5}))

    assert text_of(items) == expected_text(prompt_of(), Script(tokens=5))
    assert isinstance(items[-1], Finish) and items[-1].reason == "length"


@pytest.mark.parametrize("stop", ["END", ["END", "STOP"]])
@able("stop")
async def test_stop_reaches_the_server(
    kind: TriedKind, server: KindServer, stop: str | list[str]
) -> None:
    await read(backend_of(kind, server.base_url), asking({"stop": stop}))

    given = kind.in_body(server.calls[0].body, "stop")
    assert given in (stop, [stop])


@able("params")
async def test_other_params_reach_the_server(kind: TriedKind, server: KindServer) -> None:
    params = {"temperature": 0.25, "top_p": 0.5, "x_of_a_vendor": {"a": [1]}}
    await read(backend_of(kind, server.base_url), asking(params))

    body = server.calls[0].body
    assert kind.in_body(body, "temperature") == 0.25 and kind.in_body(body, "top_p") == 0.5
    assert kind.in_body(body, "x_of_a_vendor") == {"a": [1]}


@able("pictures")
async def test_a_picture_reaches_the_server(kind: TriedKind, server: KindServer) -> None:
    parts = [
        {"type": "text", "text": prompt_of(tokens=2)},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    await read(backend_of(kind, server.base_url), Request([{"role": "user", "content": parts}]))

    assert kind.pictures(server.calls[0].body) == [("image/png", PIXEL)]


@able("continuation")
async def test_a_partial_answer_is_continued(kind: TriedKind, server: KindServer) -> None:
    prefix = expected_text(prompt_of(), Script(tokens=7))
    backend = backend_of(kind, server.base_url)
    assert backend.can_continue
    items = await read(backend, asking(), prefix)

    assert prefix + text_of(items) == expected_text(prompt_of())
    assert isinstance(items[-1], Finish) and items[-1].reason == "stop"


# Ends from our side: cancellation and limits


async def test_a_cancellation_closes_the_upstream(kind: TriedKind, server: KindServer) -> None:
    backend = backend_of(kind, server.base_url)
    has_begun = asyncio.Event()

    async def consume() -> None:
        async for items in backend.stream(
            asking(tokens=5, fault="stall", fault_at=2), prefix="", seed="s", form=""
        ):
            if items:
                has_begun.set()

    task = asyncio.create_task(consume())
    async with asyncio.timeout(DEADLINE_S):
        await has_begun.wait()
        task.cancel()
        await asyncio.wait([task])
        await server.calls[0].left.wait()
    assert task.cancelled()
    await backend.aclose()


async def test_a_generator_that_is_closed_closes_the_upstream(
    kind: TriedKind, server: KindServer
) -> None:
    backend = backend_of(kind, server.base_url)
    stream = backend.stream(
        asking(tokens=5, fault="stall", fault_at=2), prefix="", seed="s", form=""
    )
    async with asyncio.timeout(DEADLINE_S):
        async for items in stream:
            if items:
                break
        await stream.aclose()
        await server.calls[0].left.wait()
    await backend.aclose()


LIMITS = {
    "upstream_first_token_s": ({"fault": "stall", "fault_at": 0}, "gave no token within 0.3 s"),
    "upstream_idle_s": ({"fault": "stall", "fault_at": 2}, "was silent for 0.3 s"),
    "upstream_total_s": ({"tokens": 9_000, "delay_s": 0.01}, "took more than 0.3 s"),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_each_limit_of_time(kind: TriedKind, server: KindServer, limit: str) -> None:
    script, message = LIMITS[limit]
    backend = backend_of(kind, server.base_url, **{limit: 0.3})
    error = await failure_of(backend, asking(**script))

    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert message in error.message
    # On a busy machine the time may be over before the request has reached the server.
    async with asyncio.timeout(DEADLINE_S):
        for call in server.calls:
            await call.left.wait()


@able("lines")
async def test_the_limit_of_a_line(kind: TriedKind, server: KindServer) -> None:
    backend = backend_of(kind, server.base_url, upstream_line_bytes_max=1_048_576)
    error = await failure_of(backend, asking(fault="huge_line", fault_at=3))

    assert (error.code, error.retryable) == ("upstream_error", False)
    assert "1048576 bytes" in error.message
    assert "TAILRACE_UPSTREAM_LINE_BYTES_MAX" in error.message


# Failures


async def test_a_server_that_is_away_is_an_outage(kind: TriedKind) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: no other process gets the port
        async with kind.serve() as server:
            scheme = server.base_url.partition("://")[0]
        port = listener.getsockname()[1]
        error = await failure_of(backend_of(kind, f"{scheme}://127.0.0.1:{port}"), asking())

    assert (error.code, error.retryable, error.is_outage) == ("upstream_error", True, True)
    assert error.message == "the backend cannot be reached: it refuses the connection"


@pytest.mark.parametrize("fault", ["eof", "cut"])
async def test_an_answer_that_breaks_off_can_be_tried_again(
    kind: TriedKind, server: KindServer, fault: str
) -> None:
    error = await failure_of(backend_of(kind, server.base_url), asking(fault=fault, fault_at=3))

    assert (error.code, error.retryable) == ("upstream_error", True)
    assert "broke" in error.message or "without" in error.message


@able("errors")
async def test_an_error_in_mid_answer_keeps_the_text_before_it(
    kind: TriedKind, server: KindServer
) -> None:
    backend = backend_of(kind, server.base_url)
    items: list[BackendItem] = []
    script = {"fault": "error", "fault_at": 5}
    with pytest.raises(BackendError, match="the upstream broke as told") as caught:
        async for batch in backend.stream(asking(**script), prefix="", seed="s", form=""):
            items += batch
    await backend.aclose()

    assert (caught.value.code, caught.value.retryable) == ("upstream_error", True)
    assert text_of(items) == expected_text(prompt_of(**script), Script(tokens=5))


async def test_bytes_that_are_no_text_fail_the_attempt(kind: TriedKind, server: KindServer) -> None:
    error = await failure_of(backend_of(kind, server.base_url), asking(fault="garbage", fault_at=3))

    assert (error.code, error.retryable) == ("upstream_error", True)


# Status: code, retryable, is_outage
STATUSES = {
    400: ("upstream_refused", False, False),
    401: ("upstream_refused", False, False),
    404: ("upstream_refused", False, False),
    429: ("upstream_error", True, False),
    500: ("upstream_error", True, False),
    503: ("upstream_error", True, True),
}


@pytest.mark.parametrize("status", STATUSES)
@able("status")
async def test_each_status(kind: TriedKind, server: KindServer, status: int) -> None:
    request = asking(fault="status", status=status, retry_after="7")
    error = await failure_of(backend_of(kind, server.base_url), request)

    assert (error.code, error.retryable, error.is_outage) == STATUSES[status]
    is_set_up = status == 401
    assert ("as told" in error.message) is not is_set_up
    assert (error.upstream is not None) is (not error.retryable and not is_set_up)
    assert len(server.calls) == 1


async def test_the_server_may_come_back(kind: TriedKind, server: KindServer) -> None:
    """A failed attempt leaves nothing behind that spoils the next one."""
    backend = backend_of(kind, server.base_url)
    request = asking(fault="cut", fault_at=3)  # this prompt meets the fault once
    with pytest.raises(BackendError):
        async for _ in backend.stream(request, prefix="", seed="s", form=""):
            pass
    items = await read(backend, request)

    assert text_of(items) == expected_text(prompt_of(fault="cut", fault_at=3))


async def test_calls_end_at_the_server(kind: TriedKind, server: KindServer) -> None:
    await read(backend_of(kind, server.base_url), asking())

    await until(lambda: server.calls[0].ended.is_set(), DEADLINE_S, "the end of the call")
    assert not server.calls[0].left.is_set()


# Recorded streams


def reader_of(kind: TriedKind) -> AnswerReader:
    assert kind.reader is not None
    return kind.reader(SETTINGS)


def joined(items: list[BackendItem]) -> list[BackendItem]:
    """Join neighbouring texts without `extra`, because a read may complete several."""
    whole: list[BackendItem] = []
    for item in items:
        last = whole[-1] if whole else None
        if isinstance(item, Token) and isinstance(last, Token) and not (item.extra or last.extra):
            whole[-1] = Token(last.text + item.text)
        else:
            whole.append(item)
    return whole


def read_pieces(reader: AnswerReader, pieces: list[bytes]) -> list[BackendItem]:
    items: list[BackendItem] = []
    for piece in pieces:
        items += reader.feed(piece)
    items += reader.feed_eof()
    assert reader.is_done
    return joined(items)


@pytest.mark.parametrize(("name", "stream"), STREAMS)
def test_a_recorded_stream_cut_anywhere(name: str, stream: str) -> None:
    kind = TRIED[name]
    recorded = kind.streams[stream]
    raw, expected = recorded.raw, joined(recorded.items)
    single = [bytes([byte]) for byte in raw]
    cuts = ([raw[:at], raw[at:]] for at in places(1, len(raw)))
    for pieces in ([raw], single, *cuts):
        reader = reader_of(kind)
        assert read_pieces(reader, pieces) == expected, len(pieces[0])
        if recorded.failure:
            assert reader.failure is not None
            assert reader.failure.message.startswith(recorded.failure)
        else:
            assert reader.failure is None


@pytest.mark.parametrize(("name", "stream"), STREAMS)
def test_a_recorded_stream_that_ends_early_is_never_complete_by_chance(
    name: str, stream: str
) -> None:
    """Whatever is missing at the end, the result is a failure, or the whole text."""
    kind = TRIED[name]
    recorded = kind.streams[stream]
    for end in places(0, len(recorded.raw)):
        reader = reader_of(kind)
        items = read_pieces(reader, [recorded.raw[:end]])
        if reader.failure is None:
            assert text_of(items) == text_of(recorded.items), end


@READS_BYTES
def test_any_bytes_give_items_or_a_failure(kind: TriedKind) -> None:
    chance = random.Random(7)
    samples = [recorded.raw for recorded in kind.streams.values()] or [b"{}\n"]
    for _ in range(300):
        raw = bytearray(chance.choice(samples))
        for _ in range(chance.randrange(1, 12)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        reader = reader_of(kind)
        items = read_pieces(reader, [bytes(raw)])
        assert reader.failure is not None or isinstance(items[-1], Finish)
