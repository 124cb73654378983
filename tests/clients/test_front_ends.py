"""LobeChat's runtime, LibreChat's model client and LangChain: how they show what went wrong.

Their code comes from the packages that these products publish. The versions are those that
docs/clients.md names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.node_program import NodeProgram
from tests.support.npm import front_ends
from tests.support.processes import Cluster

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


def refusing(refusal: dict[str, Any] = TOO_LONG, at: int = 0) -> dict[str, Any]:
    """What the demo model is to do: refuse after `at` tokens."""
    told = {"fail_at": at, "fail_always": True, "fail_retryable": False, "fail_upstream": refusal}
    return {"demo": {"tokens": 9, "tokens_per_s": 0, "fail_code": "upstream_refused", **told}}


@pytest.fixture(scope="module")
async def program() -> AsyncIterator[NodeProgram]:
    async with NodeProgram(str(front_ends())) as program:
        yield program


@WAYS
@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(TOO_LONG, "ExceededContextWindow"), (NO_CREDIT, "InsufficientQuota")],
    ids=["too long", "no credit"],
)
async def test_lobechat_knows_the_refusal_by_its_code(
    cluster: Cluster,
    program: NodeProgram,
    is_responses: bool,
    is_stream: bool,
    refusal: dict[str, Any],
    kind: str,
) -> None:
    mode = {"apiMode": "responses"} if is_responses else {}
    body = {**refusing(refusal), "stream": is_stream, **mode}
    said = await program.ask("lobechat", url=cluster.urls[0], body=body)

    assert said["refusal"]["error"]["message"] == refusal["message"]
    if is_responses:  # LobeChat throws the SDK's error here, and shows its sentence
        assert (said["refusal"]["status"], said["refusal"]["code"]) == (
            refusal["status"],
            refusal["code"],
        )
    else:
        assert said["refusal"]["errorType"] == kind


@pytest.mark.parametrize("mode", [{}, {"apiMode": "responses"}], ids=["chat", "responses"])
async def test_lobechat_shows_a_failure_in_mid_stream_beside_the_text(
    cluster: Cluster, program: NodeProgram, mode: dict[str, str]
) -> None:
    body = {**refusing(at=3), "stream": True, **mode}
    said = await program.ask("lobechat", url=cluster.urls[0], body=body)

    assert said["text"]
    assert SENTENCE in said["broken"]


async def test_lobechat_shows_a_refusal_that_comes_after_the_head(program: NodeProgram) -> None:
    """As after `TAILRACE_HEAD_WAIT_S`: the stream has begun, and its first chunk is the error."""
    async with Cluster(api=1, workers=1, settings={"head_wait_s": "0"}) as cluster:
        body = {**refusing(), "stream": True}
        url = cluster.urls[0]
        chat = await program.ask("lobechat", url=url, body=body)
        response = await program.ask("lobechat", url=url, body={**body, "apiMode": "responses"})

    assert chat["error"]["message"] == SENTENCE
    assert SENTENCE in response["broken"]


@WAYS
@pytest.mark.parametrize("client", ["langchain", "librechat"])
async def test_a_refusal_reaches_langchain_with_its_status_and_code_and_is_not_repeated(
    cluster: Cluster, program: NodeProgram, client: str, is_responses: bool, is_stream: bool
) -> None:
    asked: dict[str, Any] = {
        "url": cluster.urls[0], "isResponses": is_responses, "isStream": is_stream
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
    cluster: Cluster, program: NodeProgram, client: str
) -> None:
    said = await program.ask(
        client, url=cluster.urls[0], body=refusing(at=3), isResponses=True, isStream=True
    )

    assert said["text"]
    assert SENTENCE in said["error"]["message"]


@WAYS
async def test_langchain_does_not_repeat_a_bad_body(
    cluster: Cluster, program: NodeProgram, is_responses: bool, is_stream: bool
) -> None:
    said = await program.ask(
        "langchain", url=cluster.urls[0], body={"on_disconnect": "never"},
        isResponses=is_responses, isStream=is_stream,
    )  # fmt: skip

    assert (said["requests"], said["error"]["status"]) == (1, 400)
    assert said["error"]["code"] == "invalid_request"
