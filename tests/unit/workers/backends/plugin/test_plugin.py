"""Plug-ins: answers, mistakes, blocking, cancellation, loading."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from shared.config.models import Model, load_models
from shared.config.plugin_classes import plugin_names
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError
from shared.log.events import End, Reasoning, Start, Token, ToolCall, Usage
from shared.log.request import Request
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.contract import BackendItem, Finish, SetUpFault
from workers.backends.plugin import Backend, PluginRequest
from workers.backends.plugin import backend as plugin_backend
from workers.backends.plugin.api import Piece
from workers.backends.plugin.backend import PluginBackend
from workers.backends.plugin.thread import PIECES_MAX

DEADLINE_S = 10.0
Answer = Callable[[PluginRequest], Any]


def backend_of(
    answer: Answer, *, can_continue: bool = False, on_takeover: str = "auto", **settings: float
) -> PluginBackend:
    """Return the backend of a plug-in whose `answer` is this function."""
    members = {"answer": lambda self, request: answer(request), "can_continue": can_continue}
    plugin = type("Plugin", (Backend,), members)
    model = Model(name="m", backend="here:Plugin", on_takeover=on_takeover)
    return PluginBackend(model, Settings(**settings), plugin(model))  # type: ignore[arg-type]


async def read(
    backend: PluginBackend, prompt: str = "to be", prefix: str = ""
) -> list[BackendItem]:
    items: list[BackendItem] = []
    request = Request([{"role": "user", "content": prompt}], {"top_k": 3})
    async with asyncio.timeout(DEADLINE_S):
        stream = backend.stream(request, prefix=prefix, seed="s")
        async with aclosing(stream):
            assert await anext(stream) == []
            async for batch in stream:
                assert batch
                items += batch
    return items


async def failure_of(backend: PluginBackend) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await read(backend)
    return caught.value


# Answers


async def words(request: PluginRequest) -> AsyncIterator[Piece]:
    for word in request.prompt.split():
        await asyncio.sleep(0)
        yield word


def words_at_once(request: PluginRequest) -> Iterator[Piece]:
    yield from request.prompt.split()


@pytest.mark.parametrize("answer", [words, words_at_once])
async def test_an_answer_of_texts_ends_with_its_generator(answer: Answer) -> None:
    assert await read(backend_of(answer)) == [Token("to"), Token("be"), Finish("stop")]


async def test_an_answer_of_events() -> None:
    said = [Reasoning("hm"), ToolCall(0, "c", "f", "{}"), Usage(1, 2, 3), Finish("tool_calls")]

    assert await read(backend_of(lambda request: iter([*said, "ignored"]))) == said


async def test_a_plugin_gets_the_request() -> None:
    seen: list[PluginRequest] = []
    await read(backend_of(lambda request: iter([seen.append(request) or "a"])), prefix="b")

    messages = [{"role": "user", "content": "to be"}]
    assert seen == [PluginRequest(messages, {"top_k": 3}, "b", "s")]


@pytest.mark.parametrize(
    ("can_continue", "on_takeover", "expected"),
    [(True, "auto", True), (True, "restart", False), (False, "continue", False)],
)
def test_a_plugin_says_whether_it_continues(
    can_continue: bool, on_takeover: str, expected: bool
) -> None:
    backend = backend_of(words, can_continue=can_continue, on_takeover=on_takeover)

    assert backend.can_continue is expected


async def test_lone_halves_of_characters_do_no_harm() -> None:
    items = await read(backend_of(lambda request: iter(["\ud83d", Token("\ude80")])))

    assert items == [Token("�"), Token("�"), Finish("stop")]


# Mistakes


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (5, "an object of the type int"),
        (None, "an object of the type NoneType"),
        (b"bytes", "an object of the type bytes"),
        ({"token": "x"}, "an object of the type dict"),
        (Start(1, "m"), "an object of the type Start"),
        (End("completed", "stop"), "an object of the type End"),
        (Token(5), "a Token with a wrong value"),  # type: ignore[arg-type]
        (Token("a", {"b": object()}), "a Token with a wrong value"),
        (Finish("soon"), "a finish reason that is none of stop"),  # type: ignore[arg-type]
    ],
    ids=[
        "number", "None", "bytes", "dict", "Start", "End", "text that is a number",
        "extra with an object", "unknown finish reason",
    ],
)  # fmt: skip
async def test_rubbish_fails_its_answer_and_says_so(
    piece: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    items: list[BackendItem] = []
    backend = backend_of(lambda request: iter(["good", piece, "more"]))
    request = Request([])
    with pytest.raises(BackendError) as caught:
        async for batch in backend.stream(request, prefix="", seed="s"):
            items += batch

    assert items == [Token("good")]
    assert (caught.value.code, caught.value.retryable) == ("upstream_error", False)
    assert words in caught.value.message
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio"] == [
        "plug-in failed"
    ]


def raising(error: BaseException) -> Answer:
    def answer(request: PluginRequest) -> Iterator[Piece]:
        yield "a"
        raise error

    return answer


async def coroutine(request: PluginRequest) -> str:
    return "a"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (raising(ValueError("the password is x")), "the plug-in raised ValueError"),
        (raising(SystemExit(3)), "the plug-in raised SystemExit"),
        (raising(asyncio.CancelledError()), "the plug-in raised CancelledError"),
        (lambda request: "text", "the plug-in raised TypeError"),
        (coroutine, "the plug-in raised TypeError"),
        (lambda request: request.nothing, "the plug-in raised AttributeError"),
    ],
    ids=["an error", "exit", "cancelled", "a text", "a coroutine", "at once"],
)
async def test_what_a_plugin_raises_fails_its_answer(
    answer: Answer, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = await failure_of(backend_of(answer))

    assert (error.code, error.message, error.retryable) == ("upstream_error", words, True)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "plug-in failed")
    assert ".py:" in vars(record)["where"] and words.split()[-1] in vars(record)["reason"]


async def test_a_backend_error_passes_as_it_is() -> None:
    error = BackendError("upstream_refused", "no", retryable=False)

    assert await failure_of(backend_of(raising(error))) is error


# Blocking


async def test_a_plugin_that_blocks_delays_no_other_answer() -> None:
    may_end = threading.Event()

    async def answer(request: PluginRequest) -> AsyncIterator[Piece]:
        if request.prompt == "block":
            may_end.wait(DEADLINE_S)  # blocks the thread and its loop
        yield request.prompt

    backend = backend_of(answer)
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(read(backend, "block"))
        for _ in range(5):
            assert await read(backend, "go") == [Token("go"), Finish("stop")]
        assert not blocked.done()
        may_end.set()
    assert blocked.result()[0] == Token("block")


LIMITS = {
    "upstream_first_token_s": "gave no token within 0.05 s",
    "upstream_idle_s": "was silent for 0.05 s",
    "upstream_total_s": "took more than 0.05 s",
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_each_limit_of_time(limit: str) -> None:
    may_end = threading.Event()

    def answer(request: PluginRequest) -> Iterator[Piece]:
        if limit != "upstream_first_token_s":
            yield "a"
        while limit == "upstream_total_s" and not may_end.is_set():
            yield "b"
        may_end.wait(DEADLINE_S)

    error = await failure_of(backend_of(answer, **{limit: 0.05}))
    may_end.set()

    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert LIMITS[limit] in error.message


async def test_a_loop_without_an_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_backend, "STOP_S", 0.01)
    ended = threading.Event()

    def answer(request: PluginRequest) -> Iterator[Piece]:
        try:
            yield "a"
            while True:
                time.monotonic()
        finally:
            ended.set()

    await failure_of(backend_of(answer, upstream_idle_s=0.05))

    await until(ended.is_set, DEADLINE_S, "the end of the plug-in")


async def test_threads_that_do_not_stop_are_bounded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugin_backend, "STOP_S", 0.01)
    monkeypatch.setattr(plugin_backend, "LEFT_MAX", 2)
    may_end = threading.Event()

    def answer(request: PluginRequest) -> Iterator[Piece]:
        may_end.wait(DEADLINE_S)  # no Python code runs: nothing can be raised here
        yield "a"

    backend = backend_of(answer, upstream_first_token_s=0.02)
    for _ in range(2):
        assert (await failure_of(backend)).code == "upstream_timeout"
    await until(lambda: len(backend._left) == 2, DEADLINE_S, "the threads")
    error = await failure_of(backend)

    assert isinstance(error, SetUpFault) and "restart the worker" in error.advice
    assert "plug-in does not stop" in [record.getMessage() for record in caplog.records]
    may_end.set()
    await until(lambda: not any(t.is_alive for t in backend._left), DEADLINE_S, "the threads")
    assert await read(backend) == [Token("a"), Finish("stop")]


async def test_a_plugin_waits_for_a_worker_that_does_not_read() -> None:
    count = 0

    def answer(request: PluginRequest) -> Iterator[Piece]:
        nonlocal count
        for count in range(1, 3 * PIECES_MAX):  # noqa: B007 - the test reads it
            yield "a"

    backend = backend_of(answer)
    stream = backend.stream(Request([]), prefix="", seed="s")
    async with aclosing(stream):
        await anext(stream)
        await until(lambda: count > PIECES_MAX, DEADLINE_S, "a full list")
        assert count == PIECES_MAX + 1
        items = [item async for batch in stream for item in batch]

    assert len(items) == 3 * PIECES_MAX


# Cancellation


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_cancellation_reaches_the_plugin(is_async: bool) -> None:
    stopped = threading.Event()

    async def asynchronous(request: PluginRequest) -> AsyncIterator[Piece]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            stopped.set()

    def plain(request: PluginRequest) -> Iterator[Piece]:
        try:
            while True:
                yield "a"
        finally:
            stopped.set()

    backend = backend_of(asynchronous if is_async else plain)
    async with asyncio.timeout(DEADLINE_S):
        stream = backend.stream(Request([]), prefix="", seed="s")
        async for items in stream:
            if items:
                break
        await stream.aclose()

    await until(stopped.is_set, DEADLINE_S, "the end of the plug-in")


# Loading

SOURCE = """
from workers.backends.plugin import Backend


class Echo(Backend):
    def answer(self, request):
        yield request.prompt + self.model.options.get("mark", "")


class Broken(Backend):
    def __init__(self, model):
        raise KeyError("no key")

    def answer(self, request):
        yield ""


class Abstract(Backend):
    pass


text = "x"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that is installed: a module, and an entry point."""
    (tmp_path / "echo_plugin.py").write_text(SOURCE)
    (tmp_path / "echo_broken.py").write_text("import nothing_at_all")
    about = tmp_path / "echo_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[tailrace.backends]\necho = echo_plugin:Echo\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin_names.cache_clear()
    yield tmp_path
    plugin_names.cache_clear()
    sys.modules.pop("echo_plugin", None)


def models_of(folder: Path, backend: str) -> dict[str, Model]:
    path = folder / "models.toml"
    path.write_text(f'[models.m]\nbackend = "{backend}"\nmark = "!"\n')
    return load_models(str(path))


@pytest.mark.parametrize("name", ["echo", "echo_plugin:Echo"])
async def test_a_plugin_by_its_entry_point_and_by_its_class(package: Path, name: str) -> None:
    models = models_of(package, name)
    assert "echo_plugin" not in sys.modules, "API nodes read the file without the plug-in"
    (backend,) = build_backends(models, Settings(), {}).values()
    assert isinstance(backend, PluginBackend)

    assert await read(backend) == [Token("to be!"), Finish("stop")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:Echo", "cannot import no_such_module:Echo: ModuleNotFoundError"),
        ("echo_broken:Echo", "cannot import echo_broken:Echo: ModuleNotFoundError"),
        ("echo_plugin:Other", "cannot import echo_plugin:Other: AttributeError"),
        ("echo_plugin:text", "echo_plugin:text does not derive from workers.backends.plugin"),
        ("echo_plugin:Broken", "Broken cannot be made: KeyError"),
        ("echo_plugin:Abstract", "Abstract cannot be made: TypeError"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_a_clear_error_at_start(
    package: Path, name: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_backends(models_of(package, name), Settings(), {})

    assert words in str(caught.value) and "models.m.backend" in str(caught.value)


def test_a_name_that_is_no_kind_lists_the_plugins(package: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"must be one of .*echo.*, or a class as"):
        models_of(package, "ecko")
