"""Nothing that a deployment prints, answers or shows has a client's credentials in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.support.demo import demo_body
from tests.support.processes import Deployment
from tests.support.raw_client import Answer, RawClient, tell
from tests.support.tokens import SECRET, hmac_token

ALICE, OLGA = "key-of-alice-0123456789", "key-of-olga-0123456789"
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
async def deployment(own_deployment: type[Deployment]) -> AsyncIterator[Deployment]:
    settings = {
        "api_keys": f"{ALICE}:alice:act,{OLGA}:olga:admin",
        "jwt_secret": SECRET,
        "cors_origins": ORIGIN,
        "log_level": "debug",
    }
    async with own_deployment(api=1, workers=1, jobs=1, settings=settings) as deployment:
        yield deployment


async def call_everywhere(api: RawClient, credential: str) -> list[Answer]:
    """Bring a credential in each place of a request, to routes that serve, refuse and fail."""
    places = [
        {"Authorization": f"Bearer {credential}"},
        {"Authorization": f"Basic {credential}"},
        {"api-key": credential},
        {"x-api-key": credential},
        {"Authorization": f"Bearer {credential}", "X-On-Behalf-Of": "*"},
        {},
    ]
    targets = [
        ("GET", "/v1/models"),
        ("GET", "/v1/generations/gen_00000000/events"),
        ("PUT", "/v1/models"),
        ("GET", "/v1/models/"),
        ("GET", "//v1//models"),
        ("GET", "/nowhere"),
        ("GET", "/v1/ws"),
        ("POST", "/v1/generations"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/readyz"),
    ]
    calls = []
    for headers in places:
        query = "" if headers else f"?access_token={credential}&last_event_id=x"
        for method, path in targets:
            calls.append(api.call(method, path + query, headers=headers, anonymous=True, body={}))
    return list(await asyncio.gather(*calls))


async def open_everywhere(api: RawClient, credential: str) -> list[str]:
    """Bring a credential in each place of a socket; return all that is heard."""
    options = [
        {"subprotocols": ["tailrace.v1", f"bearer.{credential}"]},
        {"query": f"?access_token={credential}"},
        {"additional_headers": {"Origin": ORIGIN, "x-api-key": credential}},
        {"additional_headers": {"Origin": "https://evil.example", "api-key": credential}},
        {},
    ]
    paths = ("/v1/ws", "/v1/responses", "/lobe/ws", "/ai-sdk/ws", "/deep-chat/ws")
    sockets = [open_one(api, credential, path, each) for path in paths for each in options]
    return list(await asyncio.gather(*sockets))


async def open_one(api: RawClient, credential: str, path: str, options: dict[str, Any]) -> str:
    """Open a socket, send the credential in two frames, and return all that is heard."""
    heard = ""
    try:
        async with api.socket(path=path, **options) as socket, asyncio.timeout(20):
            assert socket.response is not None
            heard = str(socket.response.headers)
            for kind in ("auth", "auth", "nonsense"):
                await tell(socket, type=kind, token=credential)
            if path == "/v1/ws":
                await tell(socket, type="ping")
            heard += str(await socket.recv())
    except websockets.InvalidStatus as refused:
        heard += f"{refused.response.headers}{bytes(refused.response.body or b'')!r}"
    except websockets.ConnectionClosed as closed:
        heard += str(closed.rcvd)
    return heard


def command_lines(pids: list[int]) -> str:
    return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)


async def test_credentials_are_in_no_answer_no_log_no_metric_and_no_command_line(
    deployment: Deployment,
) -> None:
    good = [ALICE, hmac_token(sub="alice")]
    bad = [hmac_token("y" * 32), hmac_token(exp=1), "wrong-key-0123456789"]
    async with RawClient(deployment.urls[0], key=OLGA) as olga:
        shown = await olga.finished(demo_body(2, 0))
        share = (await olga.call("POST", "/v1/share", body={"generation": shown})).json()
        used = (*good, *bad, share["token"], share["token"] + "x")
        async with RawClient(deployment.urls[0]) as api:  # at once, because refusals are delayed
            called = await asyncio.gather(*(call_everywhere(api, each) for each in used))
            opened = await asyncio.gather(*(open_everywhere(api, each) for each in used))
        answers, heard = sum(called, []), sum(opened, [])
        await olga.call("DELETE", f"/v1/share/{share['id']}")
        metrics = (await olga.get("/metrics")).body.decode()
        redis = deployment.redis()
        try:
            kept = [str(key) for key in await redis.keys("*")]
        finally:
            await redis.aclose()

    assert {answer.status for answer in answers} >= {200, 401, 403, 404, 405}
    printed = "".join(role.output.read_text() for role in deployment.roles)
    lines = command_lines([role.pid for role in deployment.roles])
    answered = "".join(f"{answer.headers}{answer.body!r}" for answer in answers)
    places = {
        "logs": printed,
        "metrics": metrics,
        "command lines": lines,
        "answers": answered,
        "frames": "".join(heard),
        "keys of Redis": "".join(kept),
    }
    secrets = [*good, *bad, share["token"], SECRET, OLGA]
    parts = [part for secret in secrets for part in (secret, *secret.split(".")[1:])]
    found = [(name, part[:12]) for name, text in places.items() for part in parts if part in text]
    assert "api" in printed and not found
