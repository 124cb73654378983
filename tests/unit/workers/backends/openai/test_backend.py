"""The OpenAI backend against a fake server: connections, limits, failures, cancellation."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError, Refusal
from shared.log.events import Reasoning, Token, ToolCall, Usage
from shared.log.request import Request
from tests.support.openai_streams import ALL
from tests.support.upstream import Script, Upstream, expected_text
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.contract import Backend, BackendItem, Finish, SetUpFault

DEADLINE_S = 10.0  # far more than any of these tests needs


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def backend_for(url: str, settings: Settings | None = None, **members: Any) -> Backend:
    model = Model(name="m", base_url=url, **members)
    return build_backends({"m": model}, settings or Settings(), {"KEY": "sk-secret"})["m"]


def request(
    prompt: str = "hello", *, params: dict[str, Any] | None = None, **script: Any
) -> Request:
    demand = {"upstream": script} if script else {}
    return Request([{"role": "user", "content": prompt}], (params or {}) | demand)


async def read(backend: Backend, chat_request: Request, prefix: str = "") -> list[BackendItem]:
    """Read an answer to its end and close the backend; errors of the backend pass through."""
    items: list[BackendItem] = []
    rounds = 0
    try:
        async with asyncio.timeout(DEADLINE_S):
            async for batch in backend.stream(chat_request, prefix=prefix, seed="s"):
                assert bool(batch) == (rounds > 0), "only the first list is empty"
                items += batch
                rounds += 1
    finally:
        await backend.aclose()
    return items


async def failure(backend: Backend, chat_request: Request) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await read(backend, chat_request)
    return caught.value


def text_of(items: list[BackendItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


async def test_answer_is_read_to_its_finish(upstream: Upstream) -> None:
    items = await read(backend_for(upstream.base_url), request())

    assert text_of(items) == expected_text("hello")
    assert items[-2:] == [Usage(1, 20, 21), Finish("stop")]


async def test_reasoning_and_tool_calls(upstream: Upstream) -> None:
    items = await read(backend_for(upstream.base_url), request(reasoning=2, tool_call=True))

    assert [item.text for item in items if isinstance(item, Reasoning)] == [
        " thought0",
        " thought1",
    ]
    calls = [item for item in items if isinstance(item, ToolCall)]
    assert (calls[0].call_id, calls[0].name) == ("call_1", "look_up")
    assert "".join(call.arguments for call in calls) == '{"query":"流"}'
    assert items[-1] == Finish("tool_calls")


async def test_the_request_body_and_headers(upstream: Upstream) -> None:
    params = {
        "temperature": 0.5,
        "model": "x",
        "stream": False,
        "messages": [],
        "n": 3,
        "stream_options": {"continuous_usage_stats": True},
    }
    backend = backend_for(upstream.base_url + "/", model="up", api_key_env="KEY")
    await read(backend, request(params=params))

    (call,) = upstream.calls
    assert call.body == {
        "model": "up",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"continuous_usage_stats": True, "include_usage": True},
        "temperature": 0.5,
    }
    assert call.headers["authorization"] == "Bearer sk-secret"
    assert call.headers["accept-encoding"] == "identity"


async def test_without_a_key_no_authorization_is_sent(upstream: Upstream) -> None:
    await read(backend_for(upstream.base_url), request())

    assert "authorization" not in upstream.calls[0].headers


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_recorded_streams_over_the_wire(name: str, size: int) -> None:
    recorded = ALL[name]
    pieces = [recorded.raw[at : at + size] for at in range(0, len(recorded.raw), size)]
    async with Upstream(raw=pieces) as server:
        backend = backend_for(server.base_url)
        if recorded.failure:
            error = await failure(backend, request())
            assert error.message.startswith(recorded.failure)
        else:
            assert without_running(await read(backend, request())) == recorded.items


def without_running(items: list[BackendItem]) -> list[BackendItem]:
    """Leave out the counts that come before the end: how many there are depends on the reads."""
    last = max((at for at, item in enumerate(items) if isinstance(item, Usage)), default=-1)
    return [item for at, item in enumerate(items) if at == last or not isinstance(item, Usage)]


async def test_running_counts_come_with_the_text_that_they_count(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    items = await read(backend, request(tokens=3, usage="running", delay_s=0.005))

    counts = [item.completion_tokens for item in items if isinstance(item, Usage)]
    assert counts[-1] == 3 and counts == sorted(counts)
    assert len(counts) > 1


async def test_single_byte_writes(upstream: Upstream) -> None:
    items = await read(backend_for(upstream.base_url), request(write_bytes=1, comments=True))

    assert text_of(items) == expected_text("hello")


async def test_document_instead_of_a_stream(upstream: Upstream) -> None:
    items = await read(backend_for(upstream.base_url), request(is_json=True))

    assert text_of(items) == expected_text("hello")
    assert items[-1] == Finish("stop")


async def test_items_before_a_failure_are_yielded(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    items: list[BackendItem] = []
    with pytest.raises(BackendError):
        async for batch in backend.stream(request(fault="error", fault_at=5), prefix="", seed=""):
            items += batch
    await backend.aclose()

    assert text_of(items) == expected_text("hello", Script(tokens=5))


@pytest.mark.parametrize("fault", ["error", "error_field", "eof", "cut", "garbage"])
async def test_faults_in_mid_answer_are_retryable(upstream: Upstream, fault: str) -> None:
    error = await failure(backend_for(upstream.base_url), request(fault=fault, fault_at=3))

    assert (error.code, error.retryable) == ("upstream_error", True)


async def test_a_line_that_is_too_long_is_not_retryable(upstream: Upstream) -> None:
    settings = Settings(upstream_line_bytes_max=1_048_576)
    backend = backend_for(upstream.base_url, settings)
    error = await failure(backend, request(fault="huge_line", fault_at=3))

    assert (error.code, error.retryable) == ("upstream_error", False)


async def test_body_cut_anywhere_is_a_failure(upstream: Upstream) -> None:
    settings = Settings()
    for cut_at_byte in range(1, 400, 23):
        backend = backend_for(upstream.base_url, settings)
        error = await failure(
            backend, request(f"p{cut_at_byte}", fault="cut", cut_at_byte=cut_at_byte)
        )
        assert error.code == "upstream_error"
        assert error.message == "the connection to the backend broke in mid-answer"


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "upstream_refused", False),
        (401, "upstream_refused", False),
        (404, "upstream_refused", False),
        (422, "upstream_refused", False),
        (408, "upstream_error", True),
        (429, "upstream_error", True),
        (500, "upstream_error", True),
        (503, "upstream_error", True),
        (302, "upstream_refused", False),
    ],
)
async def test_statuses(upstream: Upstream, status: int, code: str, retryable: bool) -> None:
    chat_request = request(fault="status", status=status, retry_after="7")
    error = await failure(backend_for(upstream.base_url), chat_request)

    assert (error.code, error.retryable) == (code, retryable)
    is_set_up = status in (302, 401)
    assert ("as told" in error.message) is not is_set_up
    assert error.message.startswith(f"the backend answered {status}: ")
    assert (error.upstream is not None) is (code == "upstream_refused" and not is_set_up)
    assert error.retry_after_s == (7.0 if retryable else None)
    assert len(upstream.calls) == 1


async def test_a_503_that_refuses_the_prompt_is_no_outage(upstream: Upstream) -> None:
    upstream.refusal_status = 503
    upstream.refusal = b'{"error":{"message":"full","code":"context_length_exceeded"}}'
    error = await failure(backend_for(upstream.base_url), request())

    assert (error.retryable, error.is_outage) == (False, False)
    assert error.upstream == Refusal("full", 400, "context_length_exceeded")


async def test_the_key_is_not_sent_to_a_redirect_target(upstream: Upstream) -> None:
    async with Upstream() as server:
        server.redirect = f"{upstream.base_url}/chat/completions"
        error = await failure(backend_for(server.base_url, api_key_env="KEY"), request())

    assert (error.code, error.retryable) == ("upstream_refused", False)
    assert upstream.calls == []


async def test_connection_refused_is_retryable() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: no other process gets the port
        error = await failure(
            backend_for(f"http://127.0.0.1:{listener.getsockname()[1]}/v1"), request()
        )

    assert (error.code, error.retryable) == ("upstream_error", True)
    assert "127.0.0.1" not in error.message


# HTTP responses of any kind


@asynccontextmanager
async def server_of(raw: bytes) -> AsyncIterator[str]:
    """Run a server that sends these bytes on every connection and closes it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(raw)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
STREAM = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
BOMB = gzip.compress(b"data: " + b"x" * 60_000_000)
RESPONSES = {
    "nothing": b"",
    "not HTTP": b"\x00\x01\x02\x03" * 100,
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "an invalid status": b"HTTP/1.1 999999 Odd\r\n\r\n",
    "only informational responses": b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "half a head": OK,
    "an endless header": OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    "many headers": OK + b"x: y\r\n" * 50_000 + b"\r\n",
    "a header with a NUL": OK + b"x: \x00\r\n\r\n" + STREAM,
    "a header in no encoding": OK + b"x: \xff\xfe\r\n\r\n" + STREAM,
    "an odd cookie": OK + b"set-cookie: =;=;\xff\r\n\r\n" + STREAM,
    "an odd charset": OK.replace(b"event-stream", b"event-stream; charset=\xff") + b"\r\n" + STREAM,
    "an odd length": OK + b"content-length: -5\r\n\r\n" + STREAM,
    "two lengths": OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + STREAM,
    "a short body": OK + b"content-length: 5000\r\n\r\n" + STREAM,
    "invalid chunks": OK + b"transfer-encoding: chunked\r\n\r\n" + STREAM,
    "an absurd chunk": OK + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + STREAM,
    "a chunk below zero": OK + b"transfer-encoding: chunked\r\n\r\n-5\r\n" + STREAM,
    "an endless chunk extension": OK + b"transfer-encoding: chunked\r\n\r\n5;" + b"x" * 500_000,
    "not gzip": OK + b"content-encoding: gzip\r\n\r\n" + STREAM,
    "broken gzip": OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(STREAM)[:-9],
    "brotli": OK + b"content-encoding: br\r\n\r\n" + STREAM,
    "a bomb": OK + b"content-encoding: gzip\r\n\r\n" + BOMB,
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://[\r\n\r\n",
    "a refusal in no encoding": b"HTTP/1.1 400 \xff\r\ncontent-length: 2\r\n\r\n\xff\xfe",
    "a refusal that is a bomb": b"HTTP/1.1 500 x\r\ncontent-encoding: gzip\r\n\r\n" + BOMB,
    "an odd retry-after": b"HTTP/1.1 429 x\r\nretry-after: \xff\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("response", RESPONSES)
async def test_any_response_is_an_answer_or_a_backend_error(response: str) -> None:
    settings = Settings(upstream_line_bytes_max=65_536, upstream_first_token_s=3)
    tracemalloc.start()
    try:
        async with server_of(RESPONSES[response]) as url:
            with suppress(BackendError):
                assert text_of(await read(backend_for(url, settings), request())) == "hi"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 20_000_000


@settings(max_examples=60, deadline=None)
@given(head=st.binary(max_size=60), body=st.binary(max_size=60), is_http=st.booleans())
async def test_any_bytes_are_an_answer_or_a_backend_error(
    head: bytes, body: bytes, is_http: bool
) -> None:
    raw = OK + head + b"\r\n\r\n" + body if is_http else head + body
    async with server_of(raw) as url:
        with suppress(BackendError):
            await read(backend_for(url, Settings(upstream_first_token_s=1)), request())


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://:80/v1",
        "http://a:99999/v1",
        "http://[::1",
        "http://\x00/v1",
        "http://ü/v1",
    ],
)
async def test_an_invalid_address_is_a_backend_error(url: str) -> None:
    error = await failure(backend_for(url, Settings(upstream_connect_s=1)), request())

    assert error.code in ("upstream_error", "upstream_timeout")


@contextmanager
def silent_listener() -> Iterator[int]:
    """Yield a port where the kernel accepts connections and no process answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_connect_limit_covers_the_handshake() -> None:
    with silent_listener() as port:
        settings = Settings(upstream_connect_s=0.05)
        error = await failure(backend_for(f"https://127.0.0.1:{port}/v1", settings), request())

    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert error.message == "no connection to the backend within 0.05 s"


@pytest.mark.parametrize(
    "script",
    [{"head_delay_s": 60}, {"first_delay_s": 60}, {"fault": "stall", "fault_at": 0}],
    ids=["head", "body", "stall"],
)
async def test_first_token_limit(upstream: Upstream, script: dict[str, Any]) -> None:
    settings = Settings(upstream_first_token_s=0.05)
    error = await failure(backend_for(upstream.base_url, settings), request(**script))

    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert error.message == "the backend gave no token within 0.05 s"


async def test_comments_do_not_count_as_the_first_token() -> None:
    async with Upstream(raw=[b": keep-alive\n\n"] * 100_000) as server:
        settings = Settings(upstream_first_token_s=0.05)
        error = await failure(backend_for(server.base_url, settings), request())

    assert error.message == "the backend gave no token within 0.05 s"


async def test_idle_limit_applies_after_the_first_token(upstream: Upstream) -> None:
    settings = Settings(upstream_idle_s=0.05)
    chat_request = request(first_delay_s=0.2, fault="stall", fault_at=2)
    error = await failure(backend_for(upstream.base_url, settings), chat_request)

    assert (error.code, error.message) == ("upstream_timeout", "the backend was silent for 0.05 s")


async def test_total_limit(upstream: Upstream) -> None:
    settings = Settings(upstream_total_s=0.1)
    chat_request = request(tokens=100_000, delay_s=0.005)
    error = await failure(backend_for(upstream.base_url, settings), chat_request)

    assert (error.code, error.message) == ("upstream_timeout", "the answer took more than 0.1 s")


async def test_silence_after_the_finish_reason_is_the_end(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.backends.limits.AFTER_FINISH_S", 0.02)
    last = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    async with Upstream(raw=[last]) as server:
        server.keep_open = True
        items = await read(backend_for(server.base_url), request())

    assert items == [Token("a"), Finish("stop")]


async def test_timeouts_close_the_connection(upstream: Upstream) -> None:
    settings = Settings(upstream_idle_s=0.05)
    await failure(backend_for(upstream.base_url, settings), request(fault="stall", fault_at=2))

    await asyncio.wait_for(upstream.calls[0].left.wait(), DEADLINE_S)


async def test_closing_the_generator_closes_the_connection(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    async with aclosing(
        backend.stream(request(tokens=1_000, delay_s=0.01), prefix="", seed="")
    ) as batches:
        async for _ in batches:
            break
    await asyncio.wait_for(upstream.calls[0].left.wait(), DEADLINE_S)
    await backend.aclose()


@pytest.mark.parametrize(
    "script",
    [{"head_delay_s": 60}, {"first_delay_s": 60}, {"fault": "stall", "fault_at": 3}],
    ids=["head", "first token", "mid-answer"],
)
async def test_cancelling_closes_the_connection(upstream: Upstream, script: dict[str, Any]) -> None:
    backend = backend_for(upstream.base_url)
    task = asyncio.create_task(read(backend, request(**script)))
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: upstream.calls, DEADLINE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await upstream.calls[0].left.wait()


async def test_a_finished_answer_leaves_its_connection_for_the_next_one(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    for prompt in ("one", "two", "three"):
        # The last bytes of the body arrive after [DONE], in a separate packet.
        async for _ in backend.stream(request(prompt, end_delay_s=0.01), prefix="", seed=""):
            pass
    await backend.aclose()

    assert [call.connection for call in upstream.calls] == [1, 1, 1]


async def test_a_closed_idle_connection_does_not_fail_the_attempt(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    async for _ in backend.stream(request("one"), prefix="", seed=""):
        pass
    upstream.hang_up_next = True
    items = await read(backend, request("two"))

    assert text_of(items) == expected_text("two")
    assert upstream.connections == 2


async def test_many_closed_idle_connections_do_not_fail_the_attempt(upstream: Upstream) -> None:
    backend = backend_for(upstream.base_url)
    async with AsyncExitStack() as stack:
        for n in range(6):
            stream = backend.stream(request(str(n)), prefix="", seed="")
            stack.push_async_callback(drain, stream)
            await anext(stream)
    assert upstream.connections == 6
    upstream.hang_up_on_reuse = True

    assert text_of(await read(backend, request("one"))) == expected_text("one")


async def drain(stream: AsyncIterator[list[BackendItem]]) -> None:
    async for _ in stream:
        pass


async def test_a_close_on_a_new_connection_is_a_failure(
    upstream: Upstream,
) -> None:
    upstream.hang_up_next = True
    error = await failure(backend_for(upstream.base_url), request())

    assert (error.code, error.retryable) == ("upstream_error", True)


async def test_a_slow_reader_slows_the_server_down() -> None:
    frame = b'data: {"choices":[{"delta":{"content":"' + b"x" * 1_000 + b'"}}]}\n\n'
    async with Upstream(raw=[frame * 64] * 1_000) as server:
        backend = backend_for(server.base_url)
        async with aclosing(backend.stream(request(), prefix="", seed="")) as batches:
            assert await anext(batches) == []
            await anext(batches)
            for _ in range(2_000):  # rounds of the loop in which nothing is read
                await asyncio.sleep(0)
            batch = await anext(batches)
        await backend.aclose()

    assert len(batch) * len(frame) < 1_000_000


async def test_the_key_is_redacted_in_messages(upstream: Upstream) -> None:
    async with Upstream(raw=[]) as server:
        server.refusal = b'{"error":{"message":"Incorrect API key provided: sk-secret"}}'
        error = await failure(backend_for(server.base_url, api_key_env="KEY"), request())

    assert error.message == (
        "the backend answered 401: it does not accept the credentials of this system"
    )
    assert isinstance(error, SetUpFault) and "API key provided: ***" in error.advice


@pytest.mark.parametrize("style", ["continue_final_message", "trailing", "prefix"])
async def test_continuing_from_a_prefix(upstream: Upstream, style: str) -> None:
    complete = expected_text("hello")
    prefix = expected_text("hello", Script(tokens=7))
    backend = backend_for(upstream.base_url, on_takeover="continue", continue_style=style)
    assert backend.can_continue
    items = await read(backend, request(), prefix)

    assert prefix + text_of(items) == complete
    body = upstream.calls[0].body
    turn = body["messages"][-1]
    assert (turn["role"], turn["content"]) == ("assistant", prefix)
    assert turn.get("prefix", False) is (style == "prefix")
    assert body.get("continue_final_message", False) is (style == "continue_final_message")
    assert body.get("add_generation_prompt", True) is (style != "continue_final_message")


@pytest.mark.parametrize("on_takeover", ["restart", "fail"])
def test_other_models_cannot_continue(on_takeover: str) -> None:
    assert not backend_for("http://localhost/v1", on_takeover=on_takeover).can_continue
