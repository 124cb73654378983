"""Finding model servers on this machine, and the models file for them."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.models import discover, examine_found
from cli.up import discovery
from cli.up.discovery import (
    FoundServer,
    Place,
    find_servers,
    read_ollama,
    read_openai,
    write_models,
)
from shared.config.models import load_models, parse_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError

DEADLINE_S = 10.0
TAGS = {
    "models": [
        {"name": "qwen3:8b", "model": "qwen3:8b", "details": {"family": "qwen3"}},
        {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}},
        {"name": "old:1b"},
        {"name": "qwen3:8b"},
    ]
}


def openai_list(*ids: str, owner: str = "vllm") -> dict[str, Any]:
    return {"object": "list", "data": [{"id": each, "owned_by": owner} for each in ids]}


def test_ollama_lists_models_that_answer() -> None:
    assert read_ollama(TAGS, 11434) == FoundServer(
        "Ollama", "ollama", "http://localhost:11434", ("qwen3:8b", "old:1b")
    )


@pytest.mark.parametrize(
    ("owner", "title"),
    [("vllm", "vLLM"), ("llamacpp", "llama.cpp"), ("organization_owner", "a model server")],
)
def test_a_server_is_named_by_the_owner_of_its_models(owner: str, title: str) -> None:
    found = read_openai(openai_list("a/b", owner=owner), 8000)

    assert found == FoundServer(title, "openai", "http://localhost:8000/v1", ("a/b",))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"data": {}},
        {"data": []},
        {"data": ["x"]},
        openai_list("demo", owner="tailrace"),
    ],
    ids=str,
)
def test_other_answers_are_of_no_model_server(answer: Any) -> None:
    assert read_openai(answer, 8000) is None


def test_the_file_can_be_read_and_names_every_model() -> None:
    servers = [
        FoundServer("Ollama", "ollama", "http://localhost:11434", ("qwen3:8b", "demo")),
        FoundServer(
            "llama.cpp",
            "openai",
            "http://localhost:8080/v1",
            ("/data/My Model.gguf", 'a"b', "qwen3:8b", "é"),
        ),
    ]
    models = parse_models(tomllib.loads(write_models(servers, taken=["demo"])), "models.toml")

    assert {name: (model.backend, model.upstream_name) for name, model in models.items()} == {
        "qwen3:8b": ("ollama", "qwen3:8b"),
        "demo-2": ("ollama", "demo"),
        "My-Model": ("openai", "/data/My Model.gguf"),
        "a-b": ("openai", 'a"b'),
        "qwen3:8b-2": ("openai", "qwen3:8b"),
        "model": ("openai", "é"),
    }


@asynccontextmanager
async def server_of(
    raw: bytes, *, is_silent: bool = False, keeps_open: bool = False
) -> AsyncIterator[int]:
    """Run a server that gives this answer; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if not is_silent:
            writer.write(raw)
        if is_silent or keeps_open:
            await reader.read()  # until the client goes
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(body: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, headers, body)


LIST = msgspec.json.encode(openai_list("m"))
ANSWERS: dict[str, tuple[bytes, Sequence[str]]] = {
    "a list": (http(LIST), ("m",)),
    "chunks": (
        http(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LIST), LIST), b"Transfer-Encoding: chunked\r\n"),
        ("m",),
    ),
    "a page": (http(b"<html>"), ()),
    "not found": (http(LIST, status=b"404 Not Found"), ()),
    "nothing": (b"", ()),
    "no HTTP": (b"\x00\x01\r\n\r\n", ()),
    "a short body": (http(LIST, b"Content-Length: 9999\r\n"), ()),
    "an endless head": (b"HTTP/1.1 200 OK\r\n" + b"x" * 3_000_000, ()),
    "deep": (http(b"[" * 100_000), ()),
    "bad chunks": (http(LIST, b"Transfer-Encoding: chunked\r\n"), ()),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_each_answer_of_a_port_gives_its_list_of_models_or_no_models(name: str) -> None:
    raw, expected = ANSWERS[name]
    async with server_of(raw) as port:
        found = await find_servers([Place(port, "/v1/models", read_openai)])

    assert [model for server in found for model in server.models] == list(expected)


async def test_a_server_that_keeps_the_connection_open_is_read_by_its_length() -> None:
    raw = http(LIST, b"Content-Length: %d\r\n" % len(LIST))
    async with server_of(raw, keeps_open=True) as port:
        (found,) = await find_servers([Place(port, "/v1/models", read_openai)])

    assert found.models == ("m",)


async def test_a_silent_port_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "ANSWER_S", 0.05)
    async with asyncio.timeout(DEADLINE_S), server_of(b"", is_silent=True) as port:
        assert await find_servers([Place(port, "/", read_openai)]) == []


def test_the_command_prints_the_file_or_writes_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def found() -> list[FoundServer]:
        return [FoundServer("vLLM", "openai", "http://localhost:8000/v1", ("m",))]

    monkeypatch.setattr("cli.models.find_servers", found)
    path = tmp_path / "models.toml"
    assert (discover(""), discover(str(path))) == (0, 0)

    assert capsys.readouterr().out == path.read_text()
    assert list(load_models(str(path))) == ["m"]
    with pytest.raises(ConfigurationError, match="File exists"):
        discover(str(path))


def test_the_command_fails_and_names_the_ports_that_it_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def nothing() -> list[FoundServer]:
        return []

    monkeypatch.setattr("cli.models.find_servers", nothing)

    assert discover("") == 1
    assert "11434, 8080, 8000" in capsys.readouterr().err
    assert discover("", is_json=True) == 1
    assert json.loads(capsys.readouterr().out) == {"servers": []}


def test_the_command_prints_json_alone_and_still_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def found() -> list[FoundServer]:
        return [FoundServer("vLLM", "openai", "http://localhost:8000/v1", ("m",))]

    monkeypatch.setattr("cli.models.find_servers", found)
    path = tmp_path / "models.toml"
    assert discover(str(path), is_json=True) == 0

    row = {"title": "vLLM", "base_url": "http://localhost:8000/v1", "models": ["m"]}
    out, err = capsys.readouterr()
    assert json.loads(out) == {"servers": [row]} and not err
    assert list(load_models(str(path))) == ["m"]


async def test_the_doctor_names_servers_that_the_models_file_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with server_of(http(LIST)) as port:
        monkeypatch.setattr("cli.models.PLACES", [Place(port, "/v1/models", read_openai)])
        (finding,) = await examine_found(Settings())
        none = await examine_found(Settings(models_discover="off"))

    assert f"vLLM at http://localhost:{port}/v1" in finding.text and none == []
