"""The fixture upstream keeps its own promises, also as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.support.spawn import kill_group, spawn
from tests.support.upstream import Script, Upstream, expected_text
from tests.support.wait import until_sync

ROOT = Path(__file__).parents[3]


async def ask(url: str, prompt: str, **members: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]} | members
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/chat/completions", json=body) as response,
    ):
        return await response.read()


def text_of(raw: bytes) -> str:
    chunks = [
        msgspec.json.decode(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")
    ]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_every_token_is_told_apart() -> None:
    text = expected_text("p", Script(tokens=500))
    assert text.startswith(expected_text("p", Script(tokens=499)))
    assert all(str(number) in text for number in range(500))
    assert expected_text("p") != expected_text("q")


async def test_a_script_in_the_prompt() -> None:
    prompt = '{"tokens":7,"write_bytes":1}'
    async with Upstream() as upstream:
        raw = await ask(upstream.base_url, prompt)

    assert text_of(raw) == expected_text(prompt) == expected_text(prompt, Script(tokens=7))
    assert raw.endswith(b"data: [DONE]\n\n")


async def test_a_fault_meets_only_the_first_requests() -> None:
    script = {"fault": "error", "fault_at": 2, "fault_requests": 2}
    async with Upstream() as upstream:
        raws = [await ask(upstream.base_url, "p", upstream=script) for _ in range(3)]

    assert [b'"error"' in raw for raw in raws] == [True, True, False]
    assert text_of(raws[0]) == expected_text("p", Script(tokens=2))
    assert text_of(raws[2]) == expected_text("p")


async def test_a_prefix_that_is_not_its_own_is_refused() -> None:
    messages = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "nonsense"}]
    async with Upstream() as upstream:
        assert b"not my words" in await ask(upstream.base_url, "p", messages=messages)


@pytest.fixture
def process_url(tmp_path: Path) -> Iterator[str]:
    output = tmp_path / "upstream.txt"
    argv = [sys.executable, "-m", "tests.support.upstream", "--port", "0"]
    process = spawn(argv, env={}, output=output, cwd=ROOT)
    try:
        until_sync(lambda: output.read_text().endswith("/v1\n"), 10.0, "the upstream's address")
        yield output.read_text().strip()
    finally:
        kill_group(process)


async def test_as_a_process(process_url: str) -> None:
    assert text_of(await ask(process_url, "hello")) == expected_text("hello")

    async with aiohttp.ClientSession() as session, session.get(f"{process_url}/calls") as response:
        (call,) = await response.json()
    assert (call["prompt"], call["prefix"], call["left"], call["ended"]) == (
        "hello",
        "",
        False,
        True,
    )
