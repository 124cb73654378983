"""`[models."*"]` end to end: workers read a server's list, API nodes serve its names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from redis.asyncio import Redis

from shared.config.models import Model, ModelTable
from shared.config.settings import Settings
from shared.queue.model_lists import follow_list, read_list
from tests.support.processes import Deployment
from tests.support.upstream import Upstream, expected_text
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.listing import ask_names, names_in
from workers.backends.route import find_route
from workers.model_list import ModelList

DEADLINE_S = 20.0


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        server.listed = ["a", "b"]
        yield server


def table_of(upstream: Upstream) -> ModelTable:
    return ModelTable({"*": Model(name="*", base_url=upstream.base_url)})


async def test_every_name_of_the_list_can_be_asked(upstream: Upstream) -> None:
    models = f'[models."*"]\nbackend = "openai"\nbase_url = "{upstream.base_url}"\n'
    async with (
        Deployment(api=1, workers=1, models=models) as deployment,
        aiohttp.ClientSession() as http,
    ):
        url = deployment.urls[0]

        async def names() -> list[str]:
            async with http.get(f"{url}/v1/models") as response:
                return [model["id"] for model in (await response.json())["data"]]

        assert await until(names, DEADLINE_S, "the list") == ["a", "b"]
        ask = {"messages": [{"role": "user", "content": "hello"}]}
        path = f"{url}/v1/chat/completions"
        async with http.post(path, json=ask | {"model": "b"}) as response:
            answer = await response.json()
        async with http.post(path, json=ask | {"model": "c"}) as response:
            unknown = response.status

    assert answer["choices"][0]["message"]["content"] == expected_text("hello")
    assert upstream.calls[0].body["model"] == "b"
    assert unknown == 404


async def test_a_worker_asks_again_and_tells_the_others(
    upstream: Upstream, real_redis: Redis
) -> None:
    models, others = table_of(upstream), table_of(upstream)
    lists = ModelList(real_redis, models, Settings(), {})
    await lists.refresh()
    upstream.listed.append("c")
    await lists.refresh()
    following = asyncio.create_task(follow_list(real_redis, others))
    await until(lambda: "c" in others, DEADLINE_S, "the other role")
    following.cancel()

    assert list(models) == list(others) == ["a", "b", "c"]


async def test_the_last_list_counts_while_the_server_is_away(
    upstream: Upstream, real_redis: Redis
) -> None:
    await ModelList(real_redis, table_of(upstream), Settings(), {}).refresh()
    await upstream.go_down()
    models = table_of(upstream)
    await ModelList(real_redis, models, Settings(), {}).refresh()
    await upstream.go_up()

    assert list(models) == ["a", "b"]
    assert models.pattern is not None
    assert await read_list(real_redis, models.pattern) == ["a", "b"]


async def test_a_name_of_the_list_gets_a_backend_at_its_first_use(upstream: Upstream) -> None:
    models = table_of(upstream)
    backends = build_backends(models, Settings(), {})

    assert list(backends) == ["*"]
    assert backends["a"] is backends["a"]


async def test_without_the_table_no_role_follows_a_list() -> None:
    nobody: Redis = None  # type: ignore[assignment]
    async with asyncio.timeout(DEADLINE_S):
        await follow_list(nobody, ModelTable({"m": Model(name="m")}))


LISTS = {
    "openai": ("/v1", "GET /v1/models HTTP/1.1", "authorization: bearer k"),
    "completions": ("/v1", "GET /v1/models HTTP/1.1", "authorization: bearer k"),
    "ollama": ("", "GET /v1/models HTTP/1.1", "authorization: bearer k"),
    "anthropic": ("/v1", "GET /v1/models?limit=1000 HTTP/1.1", "x-api-key: k"),
    "gemini": ("/v1beta", "GET /v1beta/models?pageSize=1000 HTTP/1.1", "x-goog-api-key: k"),
}


@pytest.mark.parametrize("kind", LISTS)
async def test_each_kind_is_asked_in_its_own_way(kind: str) -> None:
    base, line, header = LISTS[kind]
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"data":[{"id":"a"}]}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{base}"
        model = Model(name="*", backend=kind, base_url=url, api_key_env="KEY")
        http = UpstreamHttp(Settings())
        names = await ask_names(model, http, find_route(model, {"KEY": "k"}))
        await http.aclose()

    assert names == ["a"]
    assert asked[0].startswith(line) and header in asked[0].lower()


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b'{"object":"list","data":[{"id":"a"},{"id":5},7]}', ["a"]),
        (b'{"models":[{"name":"models/gemini-x"}]}', ["gemini-x"]),
        (b'{"data":[]}', []),
    ],
)
def test_the_lists_of_the_kinds(body: bytes, names: list[str]) -> None:
    assert names_in(body) == names
