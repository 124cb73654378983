"""Retention, Redis away, draining: what a node answers when it cannot give what was asked for."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.support.demo import demo_body
from tests.support.raw_client import RawClient, hear, hear_until, tell
from tests.support.wait import until

SHORT = demo_body(3, 0)
LONG = demo_body(10_000, 20)
SSE, NDJSON, POLL = "text/event-stream", "application/x-ndjson", "application/json"


async def test_a_generation_past_its_retention_is_410_everywhere_and_later_404(own_deployment):
    async with own_deployment(api=2, workers=1, settings={"retention_s": "1"}) as deployment:
        async with RawClient(*deployment.urls) as api:
            generation_id = await api.start(SHORT)
            path = f"/v1/generations/{generation_id}"
            top = (await api.events(generation_id)).events[-1].event_id

            async def status() -> int:
                return (await api.get(path)).status

            await until(lambda: _is(status, 410), 6, "410")
            for answer in (
                await api.get(path, node=api.other_url),
                await api.events(generation_id),
                await api.events(generation_id, "1-1", NDJSON, node=api.other_url),
                await api.events(generation_id, top),
                await api.poll(generation_id, wait="5"),
            ):
                assert (answer.status, answer.error_code) == (410, "expired")
            async with api.socket() as socket:
                await tell(socket, type="subscribe", id=generation_id)
                error = await hear(socket)
                assert (error["type"], error["code"]) == ("error", "expired")
            await until(lambda: _is(status, 404), 6, "404 after as long again")


async def _is(status, wanted: int) -> bool:
    return await status() == wanted


@pytest.fixture(scope="module")
async def one_node(own_deployment):
    """A node whose Redis a test takes away, and gives back."""
    async with own_deployment(api=1, workers=1) as deployment:
        yield deployment


async def test_every_route_answers_503_while_redis_is_away(one_node):
    deployment = one_node
    async with RawClient(deployment.urls[0]) as api:
        generation_id = await api.finished(SHORT)
        top = (await api.log(generation_id))[-1].event_id
        deployment.server.kill()

        begun = time.monotonic()
        answers = [
            await api.post(SHORT),
            await api.post(SHORT, headers={"Accept": SSE}),
            await api.get(f"/v1/generations/{generation_id}"),
            await api.call("POST", f"/v1/generations/{generation_id}/cancel"),
            await api.events("gen_00000000000000000000000000"),
        ]
        assert time.monotonic() - begun < 5 * len(answers)
        for answer in answers:
            assert (answer.status, answer.error_code) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 0
            assert answer.json()["error"]["retryable"] is True

        broken = await api.events("gen_00000000000000000000000000", top)
        assert broken.status == 200, "a 503 would end a native EventSource for good"
        assert broken.headers["Content-Type"].startswith(SSE)
        assert b"retry: " in broken.body
        assert broken.is_broken

        assert (await api.get("/livez")).status == 200
        ready = await api.get("/readyz")
        assert ready.status == 503
        assert b"redis" in ready.body.lower()

        deployment.server.start()
        await until(lambda: _is_ready(api), 15, "readyz after Redis is back")
        assert (await api.post(SHORT)).status == 202


async def _is_ready(api: RawClient) -> bool:
    return (await api.get("/readyz")).status == 200


async def test_with_redis_frozen_every_dialect_answers_within_5_s(one_node):
    """Many at once: a node has to connect anew for all but the first of them."""
    deployment, messages = one_node, [{"role": "user", "content": "hi"}]
    async with RawClient(deployment.urls[0]) as api:
        generation_id = await api.finished(SHORT)
        run, response_id = generation_id, generation_id.replace("gen_", "resp_")
        lost = "aaaaaaaaaaaaaaaaaaaaaaaaaa"
        asked = [
            ("POST", "/v1/generations", SHORT),
            ("POST", "/v1/chat/completions", {"messages": messages}),
            ("POST", "/v1/chat/completions", {"messages": messages, "stream": True}),
            ("POST", "/v1/responses", {"input": "hi", "background": True}),
            ("POST", "/ai-sdk/chat", {"id": "c", "messages": messages}),
            ("POST", "/deep-chat", {"messages": [{"text": "hi"}]}),
            ("POST", f"/v1/responses/{response_id}/cancel", None),
            ("POST", "/ai-sdk/chat/c/stop", None),
            ("DELETE", f"/v1/responses/{response_id}", None),
            ("GET", f"/v1/responses/{response_id}", None),
            ("GET", f"/v1/responses/resp_{lost}?stream=true", None),
            ("GET", f"/v1/responses/resp_{lost}?stream=true&starting_after=3", None),
            ("GET", f"/v1/responses/{response_id}/input_items", None),
            ("GET", "/ai-sdk/chat/c/stream", None),
            ("GET", "/ai-sdk/chat/c/stream?startIndex=1", None),
            ("GET", f"/ai-sdk/chat/gen_{lost}/stream?startIndex=1", None),
            ("GET", f"/v1/generations/{run}", None),
            ("GET", f"/v1/generations/gen_{lost}/events", None),
        ]

        async def ask(method: str, path: str, body: object) -> tuple[float, int, str]:
            begun = time.monotonic()
            answer = await api.call(method, path, body=body)
            if path == "/v1/generations":
                assert answer.error_code == "unavailable"
            return time.monotonic() - begun, answer.status, f"{method} {path}"

        deployment.server.freeze()
        try:
            answers = await asyncio.gather(*[ask(*each) for each in asked])
        finally:
            deployment.server.thaw()

        assert [each for each in answers if each[0] >= 5 or each[1] != 503] == []
        await until(lambda: _is_ready(api), 15, "readyz after the thaw")


async def test_a_draining_node_refuses_new_work_and_breaks_off_readers_that_resume(own_deployment):
    """No stream ends as if it were complete, and the node's exit code is 0."""
    async with own_deployment(api=2, workers=1, settings={"drain_s": "1.5"}) as deployment:
        async with RawClient(*deployment.urls) as api, AsyncExitStack() as reading:
            generation_id = await api.start(LONG)
            await api.running(generation_id)
            sse = await reading.enter_async_context(api.stream(generation_id))
            ndjson = await reading.enter_async_context(api.stream(generation_id, accept=NDJSON))
            for each in (sse, ndjson):
                assert await each.content.readany()
            socket = await api.socket()
            await tell(socket, type="subscribe", id=generation_id)
            await hear_until(socket, "token")

            begun = time.monotonic()
            deployment.api[0].terminate()

            async def refused() -> int:
                try:
                    return (await api.post(SHORT)).status
                except aiohttp.ClientConnectionError:
                    return 0

            statuses = set()
            while deployment.api[0].is_running and time.monotonic() - begun < 10:
                statuses.add(await refused())
            assert await deployment.api[0].ended(5) == 0
            assert time.monotonic() - begun < 1.5 + 3
            assert 503 in statuses
            for each in (sse, ndjson):
                with pytest.raises(aiohttp.ClientPayloadError):
                    await each.read()
            with pytest.raises(Exception) as closed:
                await hear_until(socket, "end")
            assert closed.value.rcvd.code == 1012

            await api.call("POST", f"/v1/generations/{generation_id}/cancel", node=api.other_url)


async def test_a_draining_node_fails_readiness_and_says_draining(own_deployment):
    async with own_deployment(api=1, workers=1, settings={"drain_s": "2"}) as deployment:
        async with RawClient(deployment.urls[0]) as api:
            generation_id = await api.start(LONG)
            await api.running(generation_id)
            async with api.stream(generation_id) as reading:
                await reading.content.readany()
                deployment.api[0].terminate()

                async def is_unready() -> bool:
                    return (await api.get("/readyz")).status == 503

                await until(is_unready, 3, "readyz 503 while draining")
                answer = await api.post(SHORT)
                assert (answer.status, answer.error_code) == (503, "draining")
                assert int(answer.headers["Retry-After"]) >= 0
                with pytest.raises(aiohttp.ClientPayloadError):
                    await reading.read()
            assert await deployment.api[0].ended(10) == 0


async def test_an_answer_in_one_piece_that_a_drain_cuts_names_its_generation(own_deployment):
    """It goes on, and is read natively at the other node."""
    messages, demo = [{"role": "user", "content": "hi"}], LONG["params"]
    asked = {
        "/v1/chat/completions": {"messages": messages, **demo},
        "/v1/responses": {"input": "hi", **demo},
        "/deep-chat": {"messages": [{"text": "hi"}], "params": demo},
    }
    async with own_deployment(api=2, workers=1, settings={"drain_s": "1"}) as deployment:
        async with RawClient(*deployment.urls) as api:
            waiting = [
                asyncio.ensure_future(
                    api.call("POST", path, body={**body, "session": "w", "on_disconnect": 30})
                )
                for path, body in asked.items()
            ]

            async def are_started() -> bool:
                return len((await api.get("/v1/sessions/w")).json()["active"]) == len(asked)

            await until(are_started, 5, "three generations")
            deployment.api[0].terminate()
            answers = await asyncio.gather(*waiting)
            named = {answer.headers.get("X-Generation-Id") for answer in answers}
            listed = (await api.get("/v1/sessions/w", node=api.other_url)).json()

    assert [answer.status for answer in answers] == [503] * len(asked)
    assert named == set(listed["active"])
