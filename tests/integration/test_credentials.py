"""Credentials on a node with real sockets and a real Redis: expiry of streams, and an issuer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from shared.config.settings import Settings
from shared.log.events import End, Token
from tests.support.issuer import Issuer, key_set, serve_keys
from tests.support.local_node import LocalNode, ManualWorker, serve_here
from tests.support.tokens import SECRET, hmac_token, signed_token
from tests.support.wait import until

END = End(status="completed", finish_reason="stop")
LIFE_S = 0.4


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[LocalNode]:
    async with serve_here(Settings(redis_url=redis_url, jwt_secret=SECRET)) as local_node:
        yield local_node


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/v1/generations/{}/events", "text/event-stream"),
        ("/v1/generations/{}/events", "application/x-ndjson"),
        ("/v1/responses/{response}?stream=true", "*/*"),
        ("/ai-sdk/chat/{}/stream?startIndex=0", "*/*"),
    ],
)
async def test_a_stream_is_broken_off_when_its_token_expires_and_resumes_with_another(
    node: LocalNode, web: aiohttp.ClientSession, path: str, accept: str
) -> None:
    manual_worker = await ManualWorker.take(node.node.store, owner="alice")
    await manual_worker.append(Token("Hi"))
    response = manual_worker.generation_id.replace("gen_", "resp_")
    url = node.url + path.format(manual_worker.generation_id, response=response)
    exp = time.time() + LIFE_S

    async with web.get(url, headers=bearer(hmac_token(exp=exp)) | {"accept": accept}) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(answer.read(), 10)
    assert time.time() >= exp
    await until(lambda: not node.hub.connections, 5, "the end of the reading")

    await manual_worker.append(END)
    async with web.get(url, headers=bearer(hmac_token()) | {"accept": accept}) as answer:
        assert b"Hi" in await answer.read()


async def test_a_long_poll_ends_when_its_token_expires(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store, owner="alice")
    url = (
        f"{node.url}/v1/generations/{manual_worker.generation_id}/events?wait=30&last_event_id=1-1"
    )
    exp = time.time() + LIFE_S

    async with web.get(url, headers=bearer(hmac_token(exp=exp))) as answer:
        assert (await answer.json())["events"] == []
    assert exp <= time.time() < exp + 20


async def test_a_stream_of_an_answer_that_ends_in_time_leaves_no_timer(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store, owner="alice")
    await manual_worker.append(END)
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"

    async with web.get(url, headers=bearer(hmac_token(exp=time.time() + LIFE_S))) as answer:
        assert b"end" in await answer.read()
        # The connection is kept alive, and the next request on it is not broken off.
        await asyncio.sleep(0)
    async with web.get(url, headers=bearer(hmac_token())) as answer:
        assert answer.status == 200


async def test_within_the_leeway_after_its_end_a_token_still_opens_a_stream(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    manual_worker = await ManualWorker.take(node.node.store, owner="alice")
    url = f"{node.url}/v1/generations/{manual_worker.generation_id}/events"

    async with web.get(url, headers=bearer(hmac_token(exp=time.time() - 5))) as answer:
        assert answer.status == 200
        await manual_worker.append(END)
        assert b"end" in await answer.read()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serve_keys() as issuer:
        yield issuer


@pytest.fixture
async def relying(redis_url: str, issuer: Issuer) -> AsyncIterator[LocalNode]:
    """A node that checks tokens with the issuer's keys; it also has an API key."""
    settings = Settings(redis_url=redis_url, jwt_jwks=issuer.url, api_keys="some-api-key:alice")
    async with serve_here(settings) as local_node:
        yield local_node


async def status(web: aiohttp.ClientSession, node: LocalNode, credential: str) -> int:
    async with web.get(f"{node.url}/v1/models", headers=bearer(credential)) as answer:
        return answer.status


async def test_a_new_key_of_the_issuer_is_found_by_its_first_token(
    relying: LocalNode, web: aiohttp.ClientSession, issuer: Issuer
) -> None:
    assert await status(web, relying, signed_token("ES256", kid="one")) == 200
    assert await status(web, relying, signed_token("ES256", kid="two")) == 401
    assert issuer.asked == 1, "a token of an unknown key asks once in ten seconds"

    issuer.body = key_set("one", "two")
    tokens = relying.node.authenticator.tokens
    assert tokens is not None and tokens._source is not None
    tokens._source._tried_at_s -= 10

    assert await status(web, relying, signed_token("ES256", kid="two")) == 200
    assert issuer.asked == 2


async def test_a_slow_issuer_delays_only_the_request_that_needs_it(
    relying: LocalNode, web: aiohttp.ClientSession, issuer: Issuer
) -> None:
    issuer.held = asyncio.Event()
    waiting = asyncio.create_task(status(web, relying, signed_token("ES256", kid="one")))
    await until(lambda: issuer.asked == 1, 5, "the request to the issuer")

    for _ in range(3):
        assert await status(web, relying, "some-api-key") == 200
    assert not waiting.done()

    issuer.held.set()
    assert await waiting == 200


async def test_a_dead_issuer_takes_no_key_away_and_the_node_is_ready_but_degraded(
    relying: LocalNode, web: aiohttp.ClientSession, issuer: Issuer
) -> None:
    token = signed_token("ES256", kid="one")
    assert await status(web, relying, token) == 200
    await issuer.stop()
    tokens = relying.node.authenticator.tokens
    assert tokens is not None and tokens._source is not None
    tokens._source._tried_at_s -= 10

    assert await status(web, relying, signed_token("ES256", kid="two")) == 401

    assert await status(web, relying, token) == 200
    assert await status(web, relying, signed_token("ES256", kid="one", sub="bob")) == 200
    async with web.get(f"{relying.url}/readyz") as answer:
        body = await answer.json()
    assert body["degraded"] == ["token_keys"]
    assert issuer.url not in str(body)


KEYS = {"api_keys": "key-of-alice-0123456789:alice"}
ALICE = bearer("key-of-alice-0123456789")


@pytest.fixture
async def pair(redis_url: str) -> AsyncIterator[tuple[LocalNode, LocalNode]]:
    """Two nodes of one deployment, which watch the shares of their connections."""
    settings = Settings(redis_url=redis_url, **KEYS)
    async with serve_here(settings, "n1") as one, serve_here(settings, "n2") as two:
        watching = [asyncio.create_task(each.node.share_watch.run()) for each in (one, two)]
        yield one, two
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)


@pytest.mark.parametrize("subject", ["generation", "session"])
async def test_a_deleted_share_breaks_off_streams_and_sockets_on_every_node(
    pair: tuple[LocalNode, LocalNode], web: aiohttp.ClientSession, subject: str
) -> None:
    one, two = pair
    manual_worker = await ManualWorker.take(one.node.store, owner="alice", session="s")
    await manual_worker.append(Token("Hi"))
    body = {subject: manual_worker.generation_id if subject == "generation" else "s", "ttl_s": 600}
    async with web.post(f"{one.url}/v1/share", json=body, headers=ALICE) as answer:
        made = await answer.json()
    token, path = bearer(made["token"]), f"/v1/generations/{manual_worker.generation_id}/events"

    async with contextlib.AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(web.get(node.url + path, headers=token))
            for node in pair
        ]
        socket = await stack.enter_async_context(
            web.ws_connect(f"{two.url}/v1/ws", protocols=["tailrace.v1", f"bearer.{made['token']}"])
        )
        await socket.send_json({"type": "subscribe", "id": manual_worker.generation_id})
        assert (await socket.receive_json())["type"] == "start"
        for stream in streams:
            assert stream.status == 200
            await stream.content.readuntil(b"Hi")

        # A poll of a share does not wait for long, so that it does not outlive the share.
        async with asyncio.timeout(15):
            async with web.get(f"{one.url}{path}?wait=30&last_event_id=1-2", headers=token) as poll:
                assert (await poll.json())["events"] == []

        async with web.delete(f"{one.url}/v1/share/{made['id']}", headers=ALICE) as answer:
            assert answer.status == 200

        for stream in streams:
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(stream.content.read(), 10)
        async for _ in socket:
            pass
        assert socket.close_code == 4001
    for node in pair:
        async with web.get(node.url + path, headers=token) as answer:
            assert answer.status == 401
        assert len(node.node.share_watch) == 0


async def test_connections_of_a_share_that_end_by_themselves_are_watched_no_more(
    pair: tuple[LocalNode, LocalNode], web: aiohttp.ClientSession
) -> None:
    one, _ = pair
    manual_worker = await ManualWorker.take(one.node.store, owner="alice")
    body = {"generation": manual_worker.generation_id}
    async with web.post(f"{one.url}/v1/share", json=body, headers=ALICE) as answer:
        token = bearer((await answer.json())["token"])
    path = f"/v1/generations/{manual_worker.generation_id}/events"

    async with web.get(one.url + path, headers=token) as stream:
        assert len(one.node.share_watch) == 1
        await manual_worker.append(END)
        assert b"end" in await stream.read()

    assert len(one.node.share_watch) == 0


OLD, NEW, ACTING = "old-key-of-alice-0123", "new-key-of-alice-0123", "key-of-the-backend-01"


def write_keys(path: Path, *entries: str) -> None:
    new = path.with_suffix(".new")
    new.write_text("\n".join(["key-of-nobody-0123456:nobody", *entries]))
    new.replace(path)


@pytest.mark.parametrize(
    ("headers", "entry"),
    [
        (bearer(OLD), f"{OLD}:alice"),
        (bearer(ACTING) | {"x-on-behalf-of": "alice"}, f"{ACTING}:backend:act"),
    ],
    ids=["key", "user of a key"],
)
async def test_a_key_that_leaves_the_file_ends_its_open_streams_and_sockets(
    redis_url: str,
    web: aiohttp.ClientSession,
    tmp_path: Path,
    headers: dict[str, str],
    entry: str,
) -> None:
    path = tmp_path / "keys"
    write_keys(path, entry, f"{NEW}:alice:read")
    async with serve_here(Settings(redis_url=redis_url, api_keys=str(path))) as node:
        worker = await ManualWorker.take(node.node.store, owner="alice")
        await worker.append(Token("Hi"))
        url = f"{node.url}/v1/generations/{worker.generation_id}/events"
        async with (
            web.get(url, headers=headers) as stream,
            web.get(url, headers=bearer(NEW)) as other,
            web.ws_connect(f"{node.url}/v1/ws", headers=headers) as socket,
        ):
            write_keys(path, f"{NEW}:alice:read")
            await node.node.authenticator.look_at_key_file()

            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(stream.read(), 5)
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4501
            await worker.append(END)
            assert b"end" in await other.read(), "another key of the owner reads on"
        assert not node.node.key_watch


async def test_a_key_with_the_same_rights_stands_for_a_removed_one(
    redis_url: str, web: aiohttp.ClientSession, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    write_keys(path, f"{OLD}:alice")
    async with serve_here(Settings(redis_url=redis_url, api_keys=str(path))) as node:
        worker = await ManualWorker.take(node.node.store, owner="alice")
        url = f"{node.url}/v1/generations/{worker.generation_id}/events"
        async with web.get(url, headers=bearer(OLD)) as stream:
            write_keys(path, f"{NEW}:alice")
            await node.node.authenticator.look_at_key_file()
            await worker.append(END)
            assert b"end" in await stream.read()
