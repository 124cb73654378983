"""LobeChat's and LobeHub's runtimes, LibreChat's model client, LangChain: how they show failures.

Their code comes from the packages that these products publish. The versions are those that
docs/clients.md names.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.redis import keys
from tests.support.demo import demo_body
from tests.support.node_program import NodeProgram
from tests.support.npm import front_ends
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy
from tests.support.raw_client import RawClient
from tests.support.wait import until

SENTENCE = "This model's maximum context length is 8192 tokens."
TOO_LONG = {
    "message": SENTENCE,
    "status": 400,
    "code": "context_length_exceeded",
    "type": "invalid_request_error",
}
NO_CREDIT = {
    "message": "No credit left.",
    "status": 429,
    "code": "insufficient_quota",
    "type": "insufficient_quota",
}
WAYS = pytest.mark.parametrize(
    ("is_responses", "is_stream"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["chat", "chat, streamed", "responses", "responses, streamed"],
)

LOBE = pytest.mark.parametrize("product", ["lobechat", "lobehub"])


def refusing(refusal: dict[str, Any] = TOO_LONG, at: int = 0) -> dict[str, Any]:
    """What the demo model is to do: refuse after `at` tokens."""
    told = {"fail_at": at, "fail_always": True, "fail_retryable": False, "fail_upstream": refusal}
    return {"demo": {"tokens": 9, "tokens_per_s": 0, "fail_code": "upstream_refused", **told}}


async def writer_of(deployment: Deployment, session: str) -> Role:
    """Return the worker that writes the answer of a session, once the answer has some text."""
    async with RawClient(*deployment.urls) as api:

        async def has_text() -> str:
            active = (await api.get(f"/v1/sessions/{session}", node=api.other_url)).json()["active"]
            if not active:
                return ""
            snapshot = (await api.get(f"/v1/generations/{active[0]}", node=api.other_url)).json()
            return active[0] if len(snapshot["text"]) > 40 else ""

        generation_id = await until(has_text, 20, "the answer has some text")
    redis = deployment.redis()
    name = str(await redis.hget(keys.meta(generation_id), "worker"), "ascii")
    await redis.aclose()
    return next(role for role in deployment.workers if role.ready_name == name)


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[NodeProgram]:
    async with NodeProgram(str(front_ends())) as program:
        yield program


@LOBE
@WAYS
@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(TOO_LONG, "ExceededContextWindow"), (NO_CREDIT, "InsufficientQuota")],
    ids=["too long", "no credit"],
)
async def test_lobe_knows_the_refusal_by_its_code(
    deployment: Deployment,
    program: NodeProgram,
    product: str,
    is_responses: bool,
    is_stream: bool,
    refusal: dict[str, Any],
    kind: str,
) -> None:
    mode = {"apiMode": "responses"} if is_responses else {}
    body = {**refusing(refusal), "stream": is_stream, **mode}
    said = await program.ask(product, url=deployment.urls[0], body=body)

    assert said["refusal"]["error"]["message"] == refusal["message"]
    if is_responses:  # LobeChat throws the SDK's error here, and shows its sentence
        assert (said["refusal"]["status"], said["refusal"]["code"]) == (
            refusal["status"],
            refusal["code"],
        )
    else:
        assert said["refusal"]["errorType"] == kind


@LOBE
@pytest.mark.parametrize("mode", [{}, {"apiMode": "responses"}], ids=["chat", "responses"])
async def test_lobe_shows_a_failure_in_mid_stream_beside_the_text(
    deployment: Deployment, program: NodeProgram, product: str, mode: dict[str, str]
) -> None:
    body = {**refusing(at=3), "stream": True, **mode}
    said = await program.ask(product, url=deployment.urls[0], body=body)

    assert said["text"]
    # LobeChat breaks its page's stream; LobeHub sends its page an `error` event.
    shown = said["broken"] if product == "lobechat" else said["error"]["message"]
    assert SENTENCE in shown


async def test_lobechat_shows_a_refusal_that_comes_after_the_head(program: NodeProgram) -> None:
    """As after `TAILRACE_HEAD_WAIT_S`: the stream has begun, and its first chunk is the error."""
    async with Deployment(api=1, workers=1, settings={"head_wait_s": "0"}) as deployment:
        body = {**refusing(), "stream": True}
        url = deployment.urls[0]
        chat = await program.ask("lobechat", url=url, body=body)
        response = await program.ask("lobechat", url=url, body={**body, "apiMode": "responses"})

    assert chat["error"]["message"] == SENTENCE
    assert SENTENCE in response["broken"]


@WAYS
@pytest.mark.parametrize("client", ["langchain", "librechat"])
async def test_a_refusal_reaches_langchain_with_its_status_and_code_and_is_not_repeated(
    deployment: Deployment, program: NodeProgram, client: str, is_responses: bool, is_stream: bool
) -> None:
    asked: dict[str, Any] = {
        "url": deployment.urls[0], "isResponses": is_responses, "isStream": is_stream
    }  # fmt: skip
    too_long = await program.ask(client, body=refusing(TOO_LONG), **asked)
    no_credit = await program.ask(client, body=refusing(NO_CREDIT), **asked)

    for said in (too_long, no_credit):
        assert (said["requests"], said["text"]) == (1, ""), said
    # LangChain makes this error of the code.
    assert too_long["error"]["name"] == "ContextOverflowError", too_long
    assert SENTENCE in too_long["error"]["message"]
    assert (no_credit["error"]["status"], no_credit["error"]["code"]) == (429, "insufficient_quota")


@pytest.mark.parametrize("client", ["langchain", "librechat"])
async def test_a_response_that_fails_in_mid_stream_is_an_error_of_langchain(
    deployment: Deployment, program: NodeProgram, client: str
) -> None:
    said = await program.ask(
        client, url=deployment.urls[0], body=refusing(at=3), isResponses=True, isStream=True
    )

    assert said["text"]
    assert SENTENCE in said["error"]["message"]


@WAYS
async def test_langchain_does_not_repeat_a_bad_body(
    deployment: Deployment, program: NodeProgram, is_responses: bool, is_stream: bool
) -> None:
    said = await program.ask(
        "langchain", url=deployment.urls[0], body={"on_disconnect": "never"},
        isResponses=is_responses, isStream=is_stream,
    )  # fmt: skip

    assert (said["requests"], said["error"]["status"]) == (1, 400)
    assert said["error"]["code"] == "invalid_request"


@LOBE
@pytest.mark.parametrize("mode", [{}, {"apiMode": "responses"}], ids=["chat", "responses"])
async def test_lobe_does_not_notice_that_a_worker_was_killed(
    program: NodeProgram, product: str, mode: dict[str, str]
) -> None:
    settings = {"lease_s": "1"}
    async with Deployment(api=2, workers=2, settings=settings) as deployment:
        demo = {"tokens": 80, "tokens_per_s": 40, "seed": 5, "first_token_s": 0.0}
        body = {"stream": True, "demo": demo, "session": "killed", **mode}
        whole = await program.ask(product, url=deployment.urls[1], body=body)
        asked = asyncio.ensure_future(program.ask(product, url=deployment.urls[0], body=body))
        writer = await writer_of(deployment, "killed")
        writer.kill()
        said = await asked

    assert said == whole
    assert set(whole) == {"text", "usage"}, "neither broken nor an error"


@LOBE
async def test_lobe_shows_that_its_node_was_killed(program: NodeProgram, product: str) -> None:
    async with Deployment(api=2, workers=1) as deployment:
        demo = {"tokens": 400, "tokens_per_s": 40, "first_token_s": 0.0}
        body = {"stream": True, "demo": demo, "session": "gone"}
        asked = asyncio.ensure_future(program.ask(product, url=deployment.urls[0], body=body))
        await writer_of(deployment, "gone")
        deployment.api[0].kill()
        said = await asked

    assert "broken" in said or "error" in said


@LOBE
@pytest.mark.parametrize("mode", [{}, {"apiMode": "responses"}], ids=["chat", "responses"])
async def test_lobe_reads_reasoning_text_a_tool_call_and_the_usage(
    deployment: Deployment, program: NodeProgram, product: str, mode: dict[str, str]
) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    demo = {"tokens": 6, "tokens_per_s": 0, "reasoning_tokens": 4, "tool_call": "weather"}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "what is this?"}, picture]
    body = {
        "stream": True, "demo": demo, "tools": [{"type": "function", "function": function}],
        "messages": [{"role": "user", "content": content}], **mode,
    }  # fmt: skip
    if mode:
        body["reasoning"] = {"effort": "low", "summary": "auto"}
    said = await program.ask(product, url=deployment.urls[0], body=body, lists=True)

    assert [kind for kind in said["kinds"] if kind in ("reasoning", "text", "tool_calls")] == [
        "reasoning", "text", "tool_calls"
    ]  # fmt: skip
    assert said["usage"]["totalOutputTokens"] > 0


async def test_lobehubs_reader_of_operations_goes_on_at_the_other_node(
    program: NodeProgram, deployment: Deployment
) -> None:
    """Its connection is cut in mid-answer. It reports that, and reads on by the number."""
    body = {**demo_body(200, 40), "session": "operation"}
    async with (
        RawClient(*deployment.urls) as api,
        Proxy("127.0.0.1", deployment.api[0].port) as proxy,
    ):
        known = (await api.call("POST", "/v1/generations", body=demo_body(9, 0))).json()["id"]
        whole = await program.ask("operation", url=deployment.urls[1], id=known)  # it runs, then
        run = (await api.call("POST", "/v1/generations", body=body)).json()["id"]
        url = f"http://127.0.0.1:{proxy.port}"
        asked = asyncio.create_task(program.ask("operation", url=url, id=run))
        await writer_of(deployment, "operation")
        await proxy.cut()
        first = await asked
        seen = str(len(first["kinds"]) - 1)  # without the greeting
        rest = await program.ask("operation", url=deployment.urls[1], id=run, lastEventId=seen)
        text = (await api.ended(run))["text"]

    assert (len(first["errors"]), rest["errors"]) == (1, [])
    assert whole["kinds"][-1] == "agent_runtime_end" and whole["text"]
    assert 0 < len(first["text"]) < len(text)
    assert first["text"] + rest["text"] == text
    assert (first["kinds"] + rest["kinds"]).count("agent_runtime_init") == 1
    assert rest["kinds"][-1] == "agent_runtime_end"


async def test_what_lobehubs_server_publishes_comes_to_its_reader_once(
    program: NodeProgram, deployment: Deployment
) -> None:
    """LobeHub's own classes on both sides: its stream of events, and its reader of operations."""
    name = f"op_{uuid.uuid4().hex}"
    told = await program.ask("published", urls=deployment.urls, id=name)
    async with RawClient(*deployment.urls) as api:
        told_status = f"/lobe-gateway/api/operations/status?operationId={name}"
        assert (await api.get(told_status)).json()["status"] == "completed"
    sent = [{"type": each["type"], "data": each["data"]} for each in told["sent"]]
    for seen in (0, 5, 11):
        url = deployment.urls[seen % 2]
        said = await program.ask("operation", url=url, id=name, lastEventId=str(seen))
        assert said["kinds"][0] == "connected" and not said["errors"]
        assert said["events"][1:] == sent[seen:]
    assert len(sent) == 16
