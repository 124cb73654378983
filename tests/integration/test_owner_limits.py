"""The limits of an owner on nodes with real sockets and a real Redis, in every dialect.

Most tests share one node, and each test has owners of its own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from api.access import GENERATE, ROUTES
from api.dialects.grpc.wire import CONNECT_END, FrameReader, frame
from shared.config.settings import Settings
from shared.queue.endings import cancel
from shared.redis import keys
from tests.support.local_node import LocalNode, serve_here
from tests.support.redis_server import RedisServer
from tests.support.tokens import SECRET, hmac_token

GRPC = "/tailrace.v1.Tailrace/"
FEED = "/lobe-gateway/api/operations/"
MESSAGES = [{"role": "user", "content": "x" * 40}]
PARTS = [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}]
# Path -> the body of a prompt that is not answered from the log, so that no worker is needed.
PROMPTS: dict[str, dict[str, Any]] = {
    "/v1/generations": {"messages": MESSAGES},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/chat/completions": {"messages": MESSAGES, "stream": True},
    "/v1/responses": {"input": "x", "background": True},
    "/ai-sdk/chat": {"messages": PARTS},
    "/deep-chat": {"messages": [{"role": "user", "text": "x"}]},
    "/ag-ui/{agent:path}": {
        "threadId": "t",
        "runId": "r",
        "messages": [{"id": "m", "role": "user", "content": "x"}],
    },
    GRPC + "Start": {"messages": MESSAGES},
    GRPC + "Generate": {"messages": MESSAGES},
    FEED + "init": {"operationId": "op", "userId": "u"},
}
# Path of a socket -> the frame of a prompt.
SOCKETS: dict[str, dict[str, Any]] = {
    "/v1/ws": {"type": "start", "prompt": "x", "ref": "r"},
    "/lobe/ws": {"type": "startConversation", "prompt": "x", "sessionId": "s"},
    "/ai-sdk/ws": {"type": "send", "requestId": "r", "id": "c", "messages": PARTS},
    "/deep-chat/ws": {"messages": [{"role": "user", "text": "x"}]},
    "/v1/responses": {"type": "response.create", "input": "x"},
}
# Routes with the scope `generate` that start no prompt: they end one, write into one that was
# started elsewhere, or are about streams of one's own, where no model answers.
OTHERS = (
    "/v1/share", "/cancel", "/audio", "/stop", "/redrive", "/events", "/producer", GRPC + "Cancel",
    "/ds/v1/stream/{path:path}", "/ds/v1/stream/__ds/subscriptions/{id}/streams",
    "/ds/v1/stream/__ds/subscriptions/{id}/claim",
    FEED + "push-event", FEED + "push-events", FEED + "update-status", FEED + "tool-execute",
    FEED + "request-confirmation", FEED + "request-input",
)  # fmt: skip
# Owner -> what limits.toml gives, and the code of the second prompt's refusal.
OWNERS = {
    "active": ("active_max = 1", "too_many_active"),
    "prompts": ("prompts_per_min = 1", "rate_limited"),
    "tokens": ("tokens_per_min = 10", "rate_limited"),
    "day": ("tokens_per_day = 10", "quota_exhausted"),
}
USES = sorted({*PROMPTS, *SOCKETS, "again", "gone", "metric"})
LIMITS = "\n".join(
    f'[owners."{name} {use}"]\n{row}' for name, (row, _) in OWNERS.items() for use in USES
)


@pytest.fixture(scope="module")
async def node(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LocalNode]:
    path = tmp_path_factory.mktemp("limits") / "limits.toml"
    path.write_text(LIMITS)
    settings = Settings(redis_url=redis_server.url, jwt_secret=SECRET, limits=str(path))
    async with serve_here(settings) as local_node:
        await local_node.node.redis.flushall()
        yield local_node


@pytest.fixture
async def web() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


def who(owner: str, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {hmac_token(sub=owner, **claims)}"}


async def start(
    node: LocalNode, web: aiohttp.ClientSession, owner: str, **claims: Any
) -> tuple[int, dict[str, str], Any]:
    """Start a generation that no worker begins; return status, headers and body."""
    url, body = f"{node.url}/v1/generations", {"prompt": "x", "params": {"max_tokens": 20}}
    async with web.post(url, json=body, headers=who(owner, **claims)) as answer:
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.json()


async def send(
    node: LocalNode, web: aiohttp.ClientSession, path: str, owner: str
) -> tuple[int, str, Mapping[str, str]]:
    """Send the prompt of a route; return status, body and headers.

    Generate answers with 200 always; the status of its last frame counts.
    """
    url = node.url + path.replace("{agent:path}", "demo")
    if path != GRPC + "Generate":
        async with web.post(url, json=PROMPTS[path], headers=who(owner)) as answer:
            return answer.status, await answer.text(), answer.headers
    headers = who(owner) | {"content-type": "application/connect+json"}
    body = frame(json.dumps(PROMPTS[path]).encode())
    async with web.post(url, data=body, headers=headers) as answer:
        (end,) = FrameReader(65_536).feed(await answer.read())
        assert answer.status == 200 and end.flags == CONNECT_END
        error = json.loads(end.payload)["error"]
        status = 429 if error["code"] == "resource_exhausted" else 0
        return status, json.dumps(error), answer.headers


def code_of(path: str, text: str) -> str:
    """The code in the dialect's own error shape."""
    if path.startswith("/ag-ui"):
        return str(json.loads(text)["code"])
    if path.startswith(GRPC):
        info = json.loads(text)["details"][0]["value"]
        return next(
            code
            for _, code in OWNERS.values()
            if code.upper().encode() in base64.b64decode(info + "==")
        )
    if path.startswith("/ai-sdk"):
        return text.rpartition("(")[2].rstrip(")")
    body = json.loads(text)["error"]
    if path == "/deep-chat":
        assert isinstance(body, str) and len(body) > 20
        return ""
    return str(body["code"])


def test_every_route_that_starts_a_prompt_is_tried() -> None:
    starting = {
        path
        for path, row in ROUTES.items()
        if row.get("POST") == GENERATE and not path.endswith(OTHERS)
    }

    assert starting == set(PROMPTS)


@pytest.mark.parametrize("path", PROMPTS)
@pytest.mark.parametrize("owner", OWNERS)
async def test_a_prompt_over_a_limit_is_refused_in_the_shape_of_each_dialect(
    node: LocalNode, web: aiohttp.ClientSession, owner: str, path: str
) -> None:
    assert (await start(node, web, f"{owner} {path}"))[0] == 202

    status, text, headers = await send(node, web, path, f"{owner} {path}")

    assert status == 429, text
    assert code_of(path, text) in (OWNERS[owner][1], "")
    assert int(headers["Retry-After"]) >= 1
    if owner != "active":
        name = owner
        assert f'"{name}";r=0;t=' in headers["RateLimit"]
        assert f'"{name}";q=' in headers["RateLimit-Policy"]
    if "chat/completions" in path or "responses" in path:
        kind = "insufficient_quota" if owner == "day" else "rate_limit_error"
        assert json.loads(text)["error"]["type"] == kind
        assert headers.get("x-should-retry") == ("false" if owner == "day" else None)


async def test_the_answer_to_an_accepted_prompt_names_the_rest_of_each_limit(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    limits = {"prompts_per_min": 10, "tokens_per_min": 1_000, "tokens_per_day": 5_000}

    status, headers, _ = await start(node, web, "told", limits=limits)

    assert status == 202
    assert headers["ratelimit"].startswith('"prompts";r=9;t=6, "tokens";r=979;t=')
    assert headers["ratelimit-policy"].endswith('"day";q=5000;w=86400;qu="tokens"')
    assert headers["x-ratelimit-remaining-requests"] == "9"
    assert headers["x-ratelimit-remaining-tokens"] == "979"
    assert headers["x-ratelimit-limit-tokens"] == "1000"


async def test_without_limits_no_header_and_no_record_of_the_owner(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    status, headers, _ = await start(node, web, "nobody")

    assert status == 202
    assert not [name for name in headers if "ratelimit" in name]
    assert not await node.node.redis.exists(keys.owner_limits("nobody"))


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_socket_gets_the_refusal_as_an_error_and_lives(
    node: LocalNode, web: aiohttp.ClientSession, path: str
) -> None:
    owner = f"prompts {path}"
    await start(node, web, owner)

    async with web.ws_connect(node.url + path, headers=who(owner)) as socket:
        for _ in range(2):
            await socket.send_json(SOCKETS[path])
            said = await socket.receive_json()
            if path in ("/v1/ws", "/lobe/ws"):
                assert (said["type"], said["code"]) == ("error", "rate_limited")
                assert 1 <= said["retry_after_s"] <= 60 and said["retryable"]
            elif path == "/v1/responses":
                assert (said["type"], said["status"]) == ("error", 429)
                assert said["error"]["code"] == "rate_limited"
                assert 1 <= int(said["headers"]["retry-after"]) <= 60
            elif path == "/ai-sdk/ws":
                assert (said["type"], said["requestId"]) == ("error", "r")
                assert "rate_limited" in said["errorText"]
            else:
                assert "1 prompts a minute" in said["error"]
                assert (await socket.receive_json())["text"] == "stop-key"


async def test_a_repeat_under_a_key_consumes_nothing_and_is_never_refused(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    url, headers = f"{node.url}/v1/generations", who("active again") | {"idempotency-key": "k"}
    ids = set()
    for status in (202, 200, 200):
        async with web.post(url, json={"prompt": "x"}, headers=headers) as answer:
            assert answer.status == status
            ids.add((await answer.json())["id"])

    assert len(ids) == 1


async def test_a_cancel_frees_the_place_and_the_tokens(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    limits = {"active_max": 1, "tokens_per_min": 1_000}
    _, _, body = await start(node, web, "ending", limits=limits)
    assert (await start(node, web, "ending", limits=limits))[0] == 429

    await cancel(node.node.store, body["id"])

    status, headers, _ = await start(node, web, "ending", limits=limits)
    assert status == 202
    assert headers["x-ratelimit-remaining-tokens"] == "979"


async def test_a_count_without_a_generation_gives_its_place_back(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    """As after the death of a node between the count and the creation."""
    _, _, body = await start(node, web, "active gone")
    redis = node.node.redis
    await redis.zincrby(keys.owner_active("active gone"), -11_000, body["id"])
    assert (await start(node, web, "active gone"))[0] == 429, "it exists, and waits"

    await redis.delete(f"tr:{{{body['id']}}}:meta")

    assert (await start(node, web, "active gone"))[0] == 202


async def test_two_nodes_share_one_count(
    redis_server: RedisServer, web: aiohttp.ClientSession
) -> None:
    settings = Settings(redis_url=redis_server.url, jwt_secret=SECRET, owner_active_max=2)
    async with serve_here(settings, "n2") as one, serve_here(settings, "n3") as two:
        statuses = [(await start(each, web, "both"))[0] for each in (one, two, one, two)]

    assert statuses == [202, 202, 429, 429]


async def test_a_refusal_for_want_of_room_in_the_queue_consumes_nothing(
    redis_server: RedisServer, web: aiohttp.ClientSession
) -> None:
    settings = Settings(
        redis_url=redis_server.url, jwt_secret=SECRET, owner_prompts_per_min=5, queue_max=1
    )
    async with serve_here(settings) as node:
        await empty_queue(node)
        assert (await start(node, web, "patient"))[0] == 202
        for _ in range(3):
            assert (await start(node, web, "patient"))[2]["error"]["code"] == "queue_full"
        await empty_queue(node)

        status, headers, _ = await start(node, web, "patient")

    assert (status, headers["x-ratelimit-remaining-requests"]) == (202, "3")


async def empty_queue(node: LocalNode) -> None:
    await node.node.redis.delete("tr:{q}:waiting:interactive", "tr:{q}:interactive")


async def test_refusals_are_counted_by_code(node: LocalNode, web: aiohttp.ClientSession) -> None:
    before = refusals(node)
    for _ in range(3):
        await start(node, web, "active metric")

    assert refusals(node) - before == 2


def refusals(node: LocalNode) -> float:
    """What the node's metrics say of one code; 0 before its first refusal."""
    name = 'tailrace_limit_refusals_total{code="too_many_active"} '
    lines = node.node.metrics.render().decode().splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


async def test_the_weight_of_an_owner_goes_into_the_turn_of_a_prompt(
    node: LocalNode, web: aiohttp.ClientSession
) -> None:
    await start(node, web, "heavy", limits={"weight": 7})

    turn = await node.node.redis.hget("tr:{q}:turns:interactive", keys.digest_of("heavy"))
    assert turn.split()[-1] == b"7"
