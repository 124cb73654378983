"""The backend `local`, with its real processes and a toy in the place of the native code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from shared.config.models import parse_models
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Token, Usage
from shared.log.request import Request
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.contract import BackendItem, Finish
from workers.backends.local.backend import LocalBackend

DEADLINE_S = 20.0  # far more than any of these tests needs
TOY = Path(__file__).parents[4] / "support" / "toy_engine"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(TOY))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def text_file(file: Path) -> Path:
    file.write_bytes(b"text")
    return file


def build(file: Path, settings: Settings | None = None, **options: Any) -> LocalBackend:
    table = {"backend": "local", "file": str(file), **options}
    model = parse_models({"models": {"toy": table}}, "models.toml")["toy"]
    return LocalBackend(model, settings or Settings())


@pytest.fixture
async def backend(file: Path) -> AsyncIterator[LocalBackend]:
    made = build(file, processes=1, context_tokens=1_024)
    yield made
    await made.aclose()


def request(prompt: str, **params: Any) -> Request:
    return Request([{"role": "user", "content": prompt}], params)


async def answer(
    backend: LocalBackend, prompt: str, *, prefix: str = "", seed: str = "gen_a", **params: Any
) -> list[BackendItem]:
    stream = backend.stream(request(prompt, **params), prefix=prefix, seed=seed, form="exact")
    async with asyncio.timeout(DEADLINE_S), aclosing(stream):
        return [item async for items in stream for item in items]


def text_of(items: list[BackendItem]) -> str:
    return "".join(item.text for item in items if isinstance(item, Token))


async def test_an_answer_comes_in_pieces_with_its_counts_and_its_end(backend: LocalBackend) -> None:
    items = await answer(backend, "Hi")

    assert len([item for item in items if isinstance(item, Token)]) > 5
    prompt = len("user\nHi\nassistant\n") + 3
    assert items[-2:] == [Usage(prompt, 13, prompt + 13), Finish("stop")]


async def test_marks_of_the_template_in_a_text_of_a_user_stay_text(backend: LocalBackend) -> None:
    usage = (await answer(backend, "<|im_end|>"))[-2]

    assert isinstance(usage, Usage)
    assert usage.prompt_tokens == len("user\n<|im_end|>\nassistant\n") + 3


@pytest.mark.parametrize("temperature", [0, 1])
async def test_an_answer_cut_anywhere_goes_on_as_it_was_begun(
    backend: LocalBackend, temperature: float
) -> None:
    whole = await answer(backend, "Hi", temperature=temperature)
    pieces = [item.text for item in whole if isinstance(item, Token)]

    for count in range(1, len(pieces) + 1):
        said = "".join(pieces[:count])
        rest = await answer(backend, "Hi", prefix=said, temperature=temperature)
        assert said + text_of(rest) == "".join(pieces)
        assert rest[-2:] == whole[-2:]


async def test_a_text_that_the_model_did_not_say_is_continued_as_well(
    backend: LocalBackend,
) -> None:
    rest = await answer(backend, "Hi", prefix="Entirely other words \ufffd")

    assert isinstance(rest[-1], Finish)


async def test_the_limit_of_tokens_counts_the_whole_answer(backend: LocalBackend) -> None:
    whole = await answer(backend, "Hi", max_tokens=6)
    said = text_of(whole[:2])
    rest = await answer(backend, "Hi", prefix=said, max_tokens=6)

    assert whole[-1] == rest[-1] == Finish("length")
    assert said + text_of(rest) == text_of(whole)


async def test_the_answer_ends_before_a_stop_sequence(backend: LocalBackend) -> None:
    whole = text_of(await answer(backend, "Hi"))
    stop = whole[8:12]
    items = await answer(backend, "Hi", stop=stop)

    assert text_of(items) == whole[: whole.find(stop)]
    assert items[-1] == Finish("stop")


async def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(
    backend: LocalBackend,
) -> None:
    with pytest.raises(BackendError, match=r"the prompt has \d+ tokens, and .* takes 1024") as info:
        await answer(backend, "x" * 2_000)

    assert info.value.upstream is not None and not info.value.retryable
    assert info.value.upstream.code == "context_length_exceeded"
    assert isinstance((await answer(backend, "Hi"))[-1], Finish)


async def test_an_answer_ends_where_the_context_ends(backend: LocalBackend) -> None:
    items = await answer(backend, "say 1000 " + "x" * 500)

    usage = items[-2]
    assert items[-1] == Finish("length")
    assert isinstance(usage, Usage) and usage.total_tokens == 1_024


@pytest.mark.parametrize(
    ("params", "message"),
    [({"logprobs": True}, "logprobs"), ({"temperature": 9}, "temperature")],
    ids=["logprobs", "temperature"],
)
async def test_a_member_that_cannot_be_obeyed_is_refused(
    backend: LocalBackend, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(BackendError, match=message) as info:
        await answer(backend, "Hi", **params)

    assert (info.value.code, info.value.retryable) == ("upstream_refused", False)
    assert backend.pool.pids == []


async def test_an_answer_that_nobody_wants_stops_and_its_process_is_used_again(
    backend: LocalBackend,
) -> None:
    await answer(backend, "Hi")
    pids = backend.pool.pids
    waiting = asyncio.create_task(answer(backend, "stand still"))
    await until(lambda: backend.pool.computing == pids, 10)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert isinstance((await answer(backend, "Hi"))[-1], Finish)
    assert backend.pool.pids == pids


async def test_a_crash_of_the_native_code_ends_one_attempt_and_says_so(
    backend: LocalBackend,
) -> None:
    await answer(backend, "Hi")
    pids = backend.pool.pids
    with pytest.raises(BackendError, match=r"process of the local model died \(SIGSEGV") as info:
        await answer(backend, "crash")

    assert info.value.retryable
    assert isinstance((await answer(backend, "Hi"))[-1], Finish)
    assert backend.pool.pids != pids


async def test_a_process_that_died_while_idle_costs_no_attempt(backend: LocalBackend) -> None:
    await answer(backend, "Hi")
    pid = backend.pool.pids[0]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: backend.pool.ended == [pid], DEADLINE_S)

    assert isinstance((await answer(backend, "Hi"))[-1], Finish)


async def test_more_answers_than_processes_wait_for_their_turn(file: Path) -> None:
    backend = build(file, processes=2)
    try:
        answers = await asyncio.gather(*(answer(backend, f"Hi {n}") for n in range(6)))
        assert all(items[-1] == Finish("stop") for items in answers)
        assert len(backend.pool.pids) == 2
    finally:
        await backend.aclose()


async def test_a_process_that_computes_for_too_long_is_told_to_stop(file: Path) -> None:
    settings = Settings(upstream_first_token_s=0.05)
    backend = build(file, settings, processes=1)
    try:
        with pytest.raises(BackendError, match=r"no token within 0\.05 s"):
            await answer(backend, "stand still")
    finally:
        await backend.aclose()


async def test_a_file_that_is_no_model_is_a_final_failure_with_its_reason(
    text_file: Path,
) -> None:
    backend = build(text_file)

    with pytest.raises(BackendError, match="cannot be loaded: ValueError: Failed to load") as info:
        await answer(backend, "Hi")

    assert not info.value.retryable
    assert backend.pool.pids == []


async def test_the_processes_end_with_the_backend(file: Path) -> None:
    backend = build(file)
    await answer(backend, "Hi")
    pid = backend.pool.pids[0]

    await backend.aclose()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_process_ends_when_its_worker_has_died(file: Path) -> None:
    """The worker's end of the pipe closes, also in the middle of an answer."""
    options = {"file": str(file), "context_tokens": 512, "threads": 1, "memory_mb": 512}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "workers.local_model.engine", json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None and process.stdout is not None
    assert b"ready" in await process.stdout.readline()
    sampling = [None, 0.0, 1.0, 0, 0.0, 0.0, 0.0, 1.0, 1, []]
    task = {"id": 1, "turns": [["user", "stand still"]], "prefix": "", "sampling": sampling}
    process.stdin.write(json.dumps(task).encode() + b"\n")
    await process.stdin.drain()

    process.stdin.close()

    assert await asyncio.wait_for(process.wait(), 10) == 0


def test_without_the_engine_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.config.kinds.spec.find_spec", lambda name: None)
    models = parse_models({"models": {"smollm2": {"backend": "local"}}}, "models.toml")

    with pytest.raises(ConfigurationError, match=r"models\.smollm2: .*run `make local`") as info:
        build_backends(models, Settings(), {})
    assert "\n" not in str(info.value)


def test_an_unknown_model_without_a_file_says_which_there_are(file: Path) -> None:
    models = parse_models({"models": {"big": {"backend": "local"}}}, "models.toml")

    with pytest.raises(ConfigurationError, match=r"models\.big: name a `file`, or a `model` of"):
        build_backends(models, Settings(), {})
