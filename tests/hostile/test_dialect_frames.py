"""The dialects' sockets, and what may arrive there: each request gets its answer, and nothing dies.

How each dialect says that it has answered differs, so each has a mark: the last thing that is said,
whose answer comes after all others.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.frames import ENDED, JSON, SentMessage, converse, harmless
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame

MARK = "mark-of-the-end"
MAY_FIND = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
IDS = st.sampled_from([ENDED, "gen_nothing", "", "x" * 300, "a/b?c", "é"]) | JSON
WORDS = st.text(max_size=5) | JSON
QUICK = st.just({"demo": {"tokens": 3}}) | JSON
CHAT = (
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "role": st.sampled_from(["user", "assistant", "ai", "system", "tool", "x"]) | JSON,
                "text": WORDS,
                "html": WORDS,
                "content": WORDS,
                "files": JSON,
                "id": WORDS,
                "parts": st.lists(
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "type": st.sampled_from(["text", "file", "tool-x", "reasoning"]) | JSON,
                            "text": WORDS,
                            "url": WORDS,
                            "mediaType": WORDS,
                            "state": st.sampled_from(["output-available", "x"]) | JSON,
                            "input": JSON,
                            "output": JSON,
                            "toolCallId": WORDS,
                        },
                    ),
                    max_size=3,
                )
                | JSON,
            },
        ),
        max_size=3,
    )
    | JSON
)
ITEMS = (
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from(["message", "function_call", "reasoning", "x"]) | JSON,
                "role": st.sampled_from(["user", "assistant", "x"]) | JSON,
                "content": WORDS,
                "call_id": WORDS,
                "output": WORDS,
            },
        ),
        max_size=3,
    )
    | JSON
)
MORE = {"model": WORDS, "params": QUICK, "metadata": JSON, "session": WORDS, "on_disconnect": WORDS}


def said(
    kinds: list[str], **members: st.SearchStrategy[Any]
) -> st.SearchStrategy[list[SentMessage]]:
    """Requests of these types with these members, some of them missing, some of any type."""
    optional = {**MORE, **members}
    if kinds:
        optional["type"] = st.sampled_from(kinds) | JSON
    requests = st.fixed_dictionaries({}, optional=optional).map(json.dumps)
    return st.lists(harmless(requests), max_size=6)


LOBE = said(
    ["startConversation", "resume", "cancel", "ping", "token"],
    prompt=WORDS,
    messages=CHAT,
    messageId=IDS,
    sessionId=WORDS,
    lastEventId=st.sampled_from(["1-1", "9-9", "0-0", "x", "1-0"]) | JSON,
)
AI_SDK = said(
    ["send", "resume", "abort", "chunk"],
    requestId=IDS,
    id=IDS,
    messages=CHAT,
    message=CHAT,
    body=st.fixed_dictionaries({}, optional=MORE) | JSON,
    headers=st.fixed_dictionaries({}, optional={"Idempotency-Key": WORDS}) | JSON,
)
DEEP_CHAT = said([], messages=CHAT)
RESPONSES = said(
    [
        "response.create",
        "response.resume",
        "response.cancel",
        "response.steer",
        "response.processed",
        "response.created",
    ],
    input=WORDS | ITEMS,
    stream_id=st.sampled_from(["a", "b", "", "a b", "x" * 300]) | JSON,
    response_id=IDS,
    previous_response_id=IDS,
    starting_after=st.integers(-2, 9) | JSON,
    idempotency_key=WORDS,
    generate=st.booleans() | JSON,
    store=st.booleans() | JSON,
    client_metadata=st.fixed_dictionaries({}, optional={"thread_id": WORDS, "turn_id": WORDS})
    | JSON,
    tools=JSON,
)


@MAY_FIND
@given(said=LOBE)
async def test_the_lobe_socket_survives_hostile_frames(
    api: RawClient, ended: str, said: list[SentMessage]
) -> None:
    mark = {"type": "cancel", "messageId": MARK}

    answers, code = await socket_client(
        api, "/lobe/ws", said, ended, mark, lambda a: a[-1].get("messageId") == MARK
    )

    assert code == 0, (code, answers)
    assert all(isinstance(answer["type"], str) for answer in answers)
    assert all(answer.get("code") != "internal" for answer in answers)


@MAY_FIND
@given(said=AI_SDK)
async def test_the_ai_sdk_socket_survives_hostile_frames(
    api: RawClient, ended: str, said: list[SentMessage]
) -> None:
    mark = {"type": "resume", "requestId": MARK, "id": MARK}

    answers, code = await socket_client(
        api, "/ai-sdk/ws", said, ended, mark, lambda a: a[-1].get("requestId") == MARK
    )

    assert code == 0, (code, answers)
    assert answers[-1]["type"] == "no-active"
    assert all(isinstance(answer["requestId"], str) for answer in answers)


@MAY_FIND
@given(said=DEEP_CHAT)
async def test_the_deep_chat_socket_survives_hostile_frames(
    api: RawClient, ended: str, said: list[SentMessage]
) -> None:
    """Each request has one key after its answer, whatever the request."""
    requests = sum(bool(one.text) for one in said) + 1

    answers, code = await socket_client(
        api,
        f"/deep-chat/ws?stop_key={MARK}",
        said,
        ended,
        {"messages": []},
        lambda a: a.count({"text": MARK}) == requests,
    )

    assert code == 0, (code, answers)


@MAY_FIND
@given(said=RESPONSES)
async def test_the_responses_socket_survives_hostile_frames(
    api: RawClient, ended: str, said: list[SentMessage]
) -> None:
    mark = {"type": "response.cancel", "response_id": MARK}

    answers, code = await socket_client(
        api, "/v1/responses", said, ended, mark, lambda a: a[-1].get("response_id") == MARK
    )

    assert code == 0, (code, answers)
    assert all(isinstance(answer["type"], str) for answer in answers)
    assert all("internal" not in str(answer.get("error")) for answer in answers)


async def socket_client(
    api: RawClient, path: str, said: list[SentMessage], ended: str, mark: Any, is_over: Any
) -> tuple[list[dict[str, Any]], int]:
    raw = [*(one.wire(ended) for one in said), frame(json.dumps(mark).encode())]
    return await converse(api.url, raw, is_over, path, api.credentials)
