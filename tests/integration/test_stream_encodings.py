"""Compressed streams over real sockets, with clients that decode by themselves."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx2
import openai
import pytest

from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.decoders import DECODERS
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.wait import until

END = End(status="completed", finish_reason="stop")
DEADLINE_S = 20.0
ENCODINGS = ("gzip", "zstd", "br")


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[LocalNode]:
    settings = Settings(redis_url=redis_url, stream_encodings="zstd,br,gzip", heartbeat_s=0.4)
    async with serve_here(settings) as local_node:
        yield local_node


@pytest.fixture
async def worker(node: LocalNode) -> ManualWorker:
    return await ManualWorker.take(node.node.store)


def events_url(node: LocalNode, worker: ManualWorker) -> str:
    return f"{node.url}/v1/generations/{worker.generation_id}/events"


async def say_one_by_one(worker: ManualWorker, heard: Any, count: int = 12) -> None:
    """Write a token only after the one before was heard: a token that waits hangs the test."""
    for n in range(count):
        await worker.append(Token(f"word{n} "))
        await until(lambda n=n: f"word{n} " in heard(), DEADLINE_S, f"token {n}")
    await worker.append(END)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_curl_prints_each_token_when_it_was_written(
    node: LocalNode, worker: ManualWorker, encoding: str
) -> None:
    url = events_url(node, worker)
    process = await asyncio.create_subprocess_exec(
        "curl", "-sSN", "--compressed", "-H", f"accept-encoding: {encoding}", "-D", "/dev/stderr",
        url, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    printed = bytearray()

    async def listen(stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65_536):
            printed.extend(data)

    listening = asyncio.create_task(listen(process.stdout))
    await say_one_by_one(worker, lambda: printed.decode(errors="replace"))
    await listening
    head = (await process.stderr.read()).decode().lower()
    assert await process.wait() == 0, head
    assert f"content-encoding: {encoding}" in head
    async with aiohttp.ClientSession() as web, web.get(url, headers=PLAIN) as response:
        assert without_pings(await response.read()) == without_pings(bytes(printed))


PLAIN = {"accept": "text/event-stream", "accept-encoding": "identity"}


def without_pings(body: bytes) -> bytes:
    return body.replace(b": ping\n", b"").partition(b"id: ")[2]


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_httpx_reads_each_token_when_it_was_written(
    node: LocalNode, worker: ManualWorker, encoding: str
) -> None:
    heard = io.StringIO()

    async def listen() -> None:
        headers = {"accept": "application/x-ndjson", "accept-encoding": encoding}
        async with (
            httpx2.AsyncClient() as client,
            client.stream("GET", events_url(node, worker), headers=headers) as response,
        ):
            assert response.headers["content-encoding"] == encoding
            async for line in response.aiter_lines():
                heard.write(json.loads(line).get("text", "") if line else "")

    listening = asyncio.create_task(listen())
    await say_one_by_one(worker, heard.getvalue)
    await asyncio.wait_for(listening, DEADLINE_S)


async def test_a_reader_resumes_on_another_node_in_another_encoding(
    node: LocalNode, worker: ManualWorker, redis_url: str
) -> None:
    await worker.append(*(Token(f"{n} ") for n in range(30)))
    texts = ""
    cursor = "0-0"
    # A heartbeat ends the reading of a stream that has only one line more.
    other_settings = Settings(redis_url=redis_url, stream_encodings="gzip", heartbeat_s=0.4)
    async with serve_here(other_settings, "n2") as other, aiohttp.ClientSession() as web:
        url = {"zstd": node, "gzip": other, "br": node, "": other}
        for n, encoding in enumerate(["zstd", "gzip", "br", ""]):
            headers = {
                "accept": "application/x-ndjson", "accept-encoding": encoding or "identity",
                "last-event-id": cursor,
            }  # fmt: skip
            if n == 3:
                await worker.append(Token("last"), END)
            events = await read_some(web, events_url(url[encoding], worker), headers, encoding)
            texts += "".join(event.get("text", "") for event in events)
            cursor = events[-1]["id"]
            await worker.append(Token(f"more{n} ")) if n < 3 else None
    written = "".join(f"{n} " for n in range(30)) + "more0 more1 more2 last"
    assert texts == written


async def read_some(
    web: aiohttp.ClientSession, url: str, headers: dict[str, str], encoding: str
) -> list[dict[str, Any]]:
    """Read what a stream has so far, and break the connection off, also within a piece."""
    plain = b""
    decoder = DECODERS[encoding]() if encoding else None
    async with web.get(url, headers=headers, auto_decompress=False) as response:
        assert response.headers.get("content-encoding", "") == encoding
        async for data in response.content.iter_any():
            plain += data if decoder is None else decoder.feed(data)
            if plain.count(b"\n") > 1 or b'"end"' in plain:
                break
    return [json.loads(line) for line in plain.split(b"\n")[:-1] if line]


async def test_openai_s_sdk_reads_compressed_chat_completions(
    node: LocalNode, redis_url: str
) -> None:
    """The SDK asks for gzip by itself, and for more where its packages are installed."""
    seen: list[str] = []

    async def note(response: Any) -> None:
        seen.append(response.headers.get("content-encoding", ""))

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [note]})
    async with openai.AsyncOpenAI(base_url=f"{node.url}/v1", api_key="x", http_client=http) as sdk:
        asking = asyncio.create_task(
            sdk.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "hi"}], stream=True
            )
        )
        worker = await taken_by_hand(node)
        await worker.append(Token("word0 "))
        heard = io.StringIO()

        async def listen() -> None:
            async for chunk in await asking:
                heard.write(chunk.choices[0].delta.content or "" if chunk.choices else "")

        listening = asyncio.create_task(listen())
        await say_one_by_one(worker, heard.getvalue)
        await asyncio.wait_for(listening, DEADLINE_S)
    assert seen[0] in ENCODINGS


async def taken_by_hand(node: LocalNode) -> ManualWorker:
    """Begin the only generation that the node has accepted, as a worker does."""
    store = node.node.store
    await until(lambda: node.hub.relays, DEADLINE_S, "an accepted generation")
    (generation_id,) = node.hub.relays
    await until_created(node, generation_id)
    begun: Any = await store.begin(generation_id, "t1", "w1")
    return ManualWorker(store, generation_id, begun, "t1")


async def until_created(node: LocalNode, generation_id: str) -> None:
    async def is_there() -> bool:
        return await node.node.store.meta(generation_id) is not None

    await until(is_there, DEADLINE_S, "the generation")


async def test_a_drain_breaks_compressed_streams_off(node: LocalNode, worker: ManualWorker) -> None:
    url = events_url(node, worker)
    decoders = [DECODERS[encoding]() for encoding in ENCODINGS * 3]
    async with aiohttp.ClientSession(auto_decompress=False) as web:
        responses = [
            await web.get(url, headers={"accept-encoding": encoding}) for encoding in ENCODINGS * 3
        ]
        await worker.append(Token("one"))
        for response, decoder in zip(responses, decoders, strict=True):
            plain = b""
            while b'{"text":"one"}' not in plain:
                plain += decoder.feed(await response.content.readany())
        await node.hub.drain(0)
        for response, decoder in zip(responses, decoders, strict=True):
            with pytest.raises(aiohttp.ClientError):
                await response.read()
            assert not decoder.is_complete
    assert not node.hub.encodings.private


async def test_node_decodes_streams_piece_by_piece(node: LocalNode, worker: ManualWorker) -> None:
    program = """
    const response = await fetch(process.argv[1], {headers: {accept: "application/x-ndjson"}});
    console.log(response.headers.get("content-encoding"));
    for await (const part of response.body.pipeThrough(new TextDecoderStream()))
      process.stdout.write(part);
    """
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", program, events_url(node, worker),
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert (await process.stdout.readline()).strip() in (b"gzip", b"br")
    printed = bytearray()

    async def listen(stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65_536):
            printed.extend(data)

    listening = asyncio.create_task(listen(process.stdout))
    await say_one_by_one(worker, lambda: printed.decode(errors="replace"))
    await listening
    assert await process.wait() == 0
