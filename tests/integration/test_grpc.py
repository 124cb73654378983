"""gRPC, gRPC-Web and Connect at real nodes: every method, every cursor, every kind of error."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.wire import CONNECT_END, TRAILERS, FrameReader, frame
from tests.support.demo import demo_body, expected_text
from tests.support.grpc_client import PATH, GrpcClient, check_order, events_of, generate_request
from tests.support.processes import Deployment, run_role
from tests.support.tokens import SECRET, hmac_token
from tests.support.wait import until

ALICE, BOB, READER = "alice-key-0123456789", "bob-key-0123456789", "reader-key-0123456789"
SETTINGS = {
    "api_keys": f"{ALICE}:alice,{BOB}:bob,{READER}:alice:read",
    "jwt_secret": SECRET,
    "owner_connections_max": "30",
}
BODY = demo_body(12, 100)
MISSING = "gen_00000000000000000000000000"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"debug": False}


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    async with Deployment(api=2, workers=1, grpc=True, settings=SETTINGS) as deployment:
        yield deployment
        for node in deployment.api:
            assert "Traceback" not in node.output.read_text(), node.stderr()


@pytest.fixture
async def alice(deployment: Deployment) -> AsyncIterator[GrpcClient]:
    async with GrpcClient(deployment.api[0].grpc_target, ALICE) as client:
        yield client


@pytest.fixture
async def other(deployment: Deployment) -> AsyncIterator[GrpcClient]:
    """The same owner at the other node."""
    async with GrpcClient(deployment.api[1].grpc_target, ALICE) as client:
        yield client


@pytest.fixture
async def web(deployment: Deployment) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"authorization": f"Bearer {ALICE}"}
    async with aiohttp.ClientSession(deployment.urls[0], headers=headers) as session:
        yield session


async def whole(call: Any) -> list[pb.Event]:
    events = [event async for event in events_of(call)]
    check_order(events)
    return events


async def refused(call: Any) -> tuple[grpc.StatusCode, bytes]:
    """Return the status of a call that fails, and its details."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    trailing = dict(caught.value.trailing_metadata())
    return caught.value.code(), bytes(trailing.get("grpc-status-details-bin", b""))


async def test_generate_streams_the_answer(alice: GrpcClient) -> None:
    call = alice.call("Generate", generate_request(BODY), x_request_id="my-request")
    head = dict(await call.initial_metadata())
    events = await whole(call)

    text = "".join(event.token.text for event in events)
    assert text == expected_text(BODY, head["x-generation-id"])
    assert head["x-request-id"] == "my-request" and float(head["x-heartbeat-s"]) == 1
    assert events[0].start.model == "demo" and events[-1].end.status == "completed"
    assert await call.code() is Code.OK


async def test_attach_begins_after_every_cursor_at_the_other_node(
    alice: GrpcClient, other: GrpcClient
) -> None:
    generation_id = await alice.start(BODY)
    events = await whole(alice.call("Attach", pb.AttachRequest(id=generation_id)))
    for place, event in enumerate(events[:-1], 1):
        request = pb.AttachRequest(id=generation_id, cursor=event.id)
        assert await whole(other.call("Attach", request)) == events[place:]
    last = other.call("Attach", pb.AttachRequest(id=generation_id, cursor=events[-1].id))
    rest = [event async for event in last]
    assert rest == [pb.Event(opened=pb.Opened(generation_id=generation_id))]
    assert await last.code() is Code.OK


async def test_a_cursor_that_the_log_does_not_have_gets_a_reset_and_everything(
    alice: GrpcClient,
) -> None:
    generation_id = await alice.start(BODY)
    events = await whole(alice.call("Attach", pb.AttachRequest(id=generation_id)))
    request = pb.AttachRequest(id=generation_id, cursor="7-3")
    found = [event async for event in events_of(alice.call("Attach", request))]

    assert (found[0].id, found[0].reset.reason) == ("0-0", "log_rewritten")
    assert found[1:] == events


async def test_get_session_and_cancel(alice: GrpcClient, other: GrpcClient) -> None:
    slow = demo_body(500, 20)
    request = generate_request({**slow, "session": "s/1", "metadata": {"k": [1, None]}})
    started = await alice.call("Start", request)
    await until(lambda: has_text(other, started.id), 10, "text")
    cancelled = await other.call("Cancel", pb.CancelRequest(id=started.id))
    again = await other.call("Cancel", pb.CancelRequest(id=started.id))
    found = await alice.call("Get", pb.GetRequest(id=started.id))
    page = await other.call("Session", pb.SessionRequest(session="s/1"))

    assert (started.status, started.session) == ("queued", "s/1")
    assert cancelled.status in ("cancelled", "running") and again.status == "cancelled"
    assert (found.status, found.messages[0].content) == ("cancelled", slow["prompt"])
    assert list(found.metadata["k"]) == [1, None]
    assert [each.id for each in page.generations] == [started.id] and not page.active


async def has_text(client: GrpcClient, generation_id: str) -> bool:
    return bool((await client.call("Get", pb.GetRequest(id=generation_id))).text)


async def test_a_repeat_with_the_same_key_is_the_same_generation(
    alice: GrpcClient, other: GrpcClient
) -> None:
    request = generate_request(BODY)
    first = await whole(alice.call("Generate", request, idempotency_key="k1"))
    request.cursor = first[4].id
    assert await whole(other.call("Generate", request, idempotency_key="k1")) == first[5:]
    changed = generate_request({**BODY, "prompt": "another"})
    code, _ = await refused(other.call("Generate", changed, idempotency_key="k1"))
    assert code is Code.INVALID_ARGUMENT


async def test_the_deadline_of_generate_is_that_of_the_generation(
    alice: GrpcClient, other: GrpcClient
) -> None:
    call = alice.call("Generate", generate_request(demo_body(500, 20)), timeout_s=1.0)
    generation_id = dict(await call.initial_metadata())["x-generation-id"]
    code, _ = await refused(call)
    request = pb.AttachRequest(id=generation_id)
    end = (await whole(other.call("Attach", request)))[-1].end

    assert code is Code.DEADLINE_EXCEEDED
    assert (end.status, end.error.code) == ("failed", "deadline_exceeded")


async def test_the_deadline_of_start_ends_only_the_call(alice: GrpcClient) -> None:
    started = await alice.call("Start", generate_request(demo_body(28, 20)), timeout_s=1.0)
    events = await whole(alice.call("Attach", pb.AttachRequest(id=started.id)))

    assert events[-1].end.status == "completed"


async def test_the_limits_of_a_request_are_those_of_the_native_interface(
    alice: GrpcClient,
) -> None:
    body = demo_body(500, 20)
    by_header = await alice.start(body, x_request_timeout="0.5")
    by_member = await alice.start({**body, "deadline_s": 0.5})
    for generation_id in (by_header, by_member):
        end = (await whole(alice.call("Attach", pb.AttachRequest(id=generation_id))))[-1].end
        assert end.error.code == "deadline_exceeded"


@pytest.mark.parametrize(
    ("method", "request_", "code", "said"),
    [
        ("Get", pb.GetRequest(id=MISSING), Code.NOT_FOUND, b"not_found"),
        ("Attach", pb.AttachRequest(id=MISSING), Code.NOT_FOUND, b"not_found"),
        ("Attach", pb.AttachRequest(id=MISSING, cursor="x"), Code.INVALID_ARGUMENT, b"cursor"),
        ("Start", pb.GenerateRequest(), Code.INVALID_ARGUMENT, b"prompt"),
        ("Start", pb.GenerateRequest(prompt="x", model="none"), Code.NOT_FOUND, b"model_not_found"),
        ("Start", pb.GenerateRequest(prompt="x", priority="no"),
         Code.INVALID_ARGUMENT, b"priority"),
        ("Generate", pb.GenerateRequest(prompt="x", session="s" * 129),
         Code.INVALID_ARGUMENT, b"session"),
        ("Generate", pb.GenerateRequest(prompt="x", deadline_s=float("inf")),
         Code.INVALID_ARGUMENT, b"deadline_s"),
        ("Generate", pb.GenerateRequest(prompt="x", deadline_s=-1),
         Code.INVALID_ARGUMENT, b"deadline_s"),
        ("Start", pb.GenerateRequest(prompt="x", on_disconnect="nan"),
         Code.INVALID_ARGUMENT, b"on_disconnect"),
        ("Generate", b"\xff\xff", Code.INVALID_ARGUMENT, b"invalid_protobuf"),
        ("Start", b"\x12\x00" * 30_000, Code.INVALID_ARGUMENT, b"invalid_protobuf"),
    ],
)  # fmt: skip
async def test_each_mistake_has_its_status_and_details(
    alice: GrpcClient, method: str, request_: Any, code: grpc.StatusCode, said: bytes
) -> None:
    found, details = await refused(alice.call(method, request_))

    assert found is code
    assert said in details


async def test_credentials_and_scopes_count(deployment: Deployment, alice: GrpcClient) -> None:
    generation_id = await alice.start(BODY)
    target = deployment.api[0].grpc_target
    for key, method, request, code in (
        ("", "Get", pb.GetRequest(id=generation_id), Code.UNAUTHENTICATED),
        ("wrong", "Start", generate_request(BODY), Code.UNAUTHENTICATED),
        (BOB, "Get", pb.GetRequest(id=generation_id), Code.NOT_FOUND),
        (BOB, "Cancel", pb.CancelRequest(id=generation_id), Code.NOT_FOUND),
        (READER, "Start", generate_request(BODY), Code.PERMISSION_DENIED),
        (READER, "Cancel", pb.CancelRequest(id=generation_id), Code.PERMISSION_DENIED),
    ):
        async with GrpcClient(target, key) as client:
            assert (await refused(client.call(method, request)))[0] is code, (key, method)


async def test_a_stream_ends_when_its_token_expires(deployment: Deployment) -> None:
    token = hmac_token(exp=int(time.time()) + 2, sub="carol")
    async with GrpcClient(deployment.api[0].grpc_target, token) as client:
        call = client.call("Generate", generate_request(demo_body(500, 20)))
        code, details = await refused(call)

    assert code is Code.UNAUTHENTICATED and b"token_expired" in details


async def test_a_share_reads_its_generation_and_starts_nothing(
    deployment: Deployment, alice: GrpcClient, web: aiohttp.ClientSession
) -> None:
    generation_id, foreign = await alice.start(BODY), await alice.start(BODY)
    async with web.post("/v1/share", json={"generation": generation_id}) as answer:
        token = (await answer.json())["token"]
    async with GrpcClient(deployment.api[1].grpc_target, token) as client:
        assert await whole(client.call("Attach", pb.AttachRequest(id=generation_id)))
        assert (await client.call("Get", pb.GetRequest(id=generation_id))).worker == ""
        code, _ = await refused(client.call("Get", pb.GetRequest(id=foreign)))
        assert code is Code.NOT_FOUND
        assert (await refused(client.call("Start", generate_request(BODY))))[
            0
        ] is Code.PERMISSION_DENIED


async def test_the_readers_of_an_owner_are_counted(deployment: Deployment) -> None:
    """The 31st is refused, with a time; what has ended gives its place back."""
    async with GrpcClient(deployment.api[0].grpc_target, BOB) as client:
        generation_id = await client.start(demo_body(500, 20))
        request = pb.AttachRequest(id=generation_id)
        calls = [client.call("Attach", request) for _ in range(30)]
        for call in calls:
            await call.initial_metadata()
        code, details = await refused(client.call("Attach", request))
        assert code is Code.RESOURCE_EXHAUSTED
        assert b"too_many_connections" in details and b"RetryInfo" in details
        for call in calls:
            call.cancel()
        await until(lambda: can_read(client, request), 10, "a free place")
        await client.call("Cancel", pb.CancelRequest(id=generation_id))


async def can_read(client: GrpcClient, request: pb.AttachRequest) -> bool:
    call = client.call("Attach", request)
    try:
        await call.initial_metadata()
        return not call.done() or await call.code() is Code.OK
    finally:
        call.cancel()


async def test_a_client_that_leaves_leaves_its_generation_to_the_grace(alice: GrpcClient) -> None:
    body = {**demo_body(500, 20), "on_disconnect": "cancel"}
    call = alice.call("Generate", generate_request(body))
    generation_id = dict(await call.initial_metadata())["x-generation-id"]
    call.cancel()
    # Get is no reader.
    await until(lambda: is_cancelled(alice, generation_id), 15, "the cancellation")


async def is_cancelled(client: GrpcClient, generation_id: str) -> bool:
    found = await client.call("Get", pb.GetRequest(id=generation_id))
    return bool(found.status == "cancelled")


async def test_health_and_reflection_need_no_credentials(deployment: Deployment) -> None:
    async with GrpcClient(deployment.api[0].grpc_target) as client:
        health = health_pb2_grpc.HealthStub(client.channel)
        for service in ("", "tailrace.v1.Tailrace"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        call = client.adopt(stub.ServerReflectionInfo())
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {each.name for each in (await call.read()).list_services_response.service}

    assert names >= {"tailrace.v1.Tailrace", "grpc.health.v1.Health"}


async def test_a_silent_stream_has_heartbeats(
    alice: GrpcClient, web: aiohttp.ClientSession
) -> None:
    generation_id = await alice.start(demo_body(2, 0, first_token_s=2.5))
    request = pb.AttachRequest(id=generation_id)
    (found, over_http) = await asyncio.gather(
        all_of(alice.call("Attach", request)),
        frames_over_http(web, "application/connect+json", request),
    )

    assert found.count(pb.Event()) >= 1
    assert (0, b"{}") in over_http


async def all_of(call: Any) -> list[pb.Event]:
    return [event async for event in call]


# gRPC-Web and Connect


async def post(web: aiohttp.ClientSession, method: str, form: str, message: bytes) -> Any:
    return web.post(PATH + method, data=message, headers={"content-type": form})


async def frames_over_http(
    web: aiohttp.ClientSession, form: str, request: pb.AttachRequest
) -> list[tuple[int, bytes]]:
    is_json, is_text = form.endswith("json"), "text" in form
    message = json.dumps({"id": request.id, "cursor": request.cursor}).encode()
    body = frame(message if is_json else request.SerializeToString())
    body = base64.b64encode(body) if is_text else body
    async with web.post(PATH + "Attach", data=body, headers={"content-type": form}) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["content-type"].startswith(form)
        raw = await answer.read()
    if is_text:
        raw = b"".join(base64.b64decode(each + b"=" * (-len(each) % 4)) for each in pieces(raw))
    return [(each.flags, each.payload) for each in FrameReader(1_000_000).feed(raw)]


def pieces(text: bytes) -> list[bytes]:
    """Split base64 behind each padding."""
    found = text.replace(b"=", b" ").split()
    return found


@pytest.mark.parametrize(
    ("form", "last"),
    [
        ("application/grpc-web+proto", (TRAILERS, b"grpc-status: 0\r\n")),
        ("application/grpc-web-text+proto", (TRAILERS, b"grpc-status: 0\r\n")),
        ("application/connect+proto", (CONNECT_END, b"{}")),
        ("application/connect+json", (CONNECT_END, b"{}")),
    ],
)
async def test_a_stream_over_http_begins_after_every_cursor(
    alice: GrpcClient, web: aiohttp.ClientSession, form: str, last: tuple[int, bytes]
) -> None:
    generation_id = await alice.start(BODY)
    events = await whole(alice.call("Attach", pb.AttachRequest(id=generation_id)))
    for place in range(len(events) + 1):
        cursor = events[place - 1].id if place else ""
        request = pb.AttachRequest(id=generation_id, cursor=cursor)
        found = await frames_over_http(web, form, request)
        assert found[-1] == last
        ids = [
            json.loads(raw)["id"] if form.endswith("json") else pb.Event.FromString(raw).id
            for _, raw in found[1:-1]
        ]
        assert ids == [event.id for event in events[place:]]


async def test_a_call_over_http_in_each_form(alice: GrpcClient, web: aiohttp.ClientSession) -> None:
    generation_id = await alice.start(BODY)
    message = pb.GetRequest(id=generation_id).SerializeToString()
    for form, body in (
        ("application/proto", message),
        ("application/grpc-web", frame(message)),
        ("application/json", json.dumps({"id": generation_id}).encode()),
    ):
        headers = {"content-type": form}
        async with web.post(PATH + "Get", data=body, headers=headers) as answer:
            assert answer.status == 200
            raw = await answer.read()
        if form.endswith("json"):
            assert json.loads(raw)["id"] == generation_id
        else:
            raw = next(FrameReader(10**6).feed(raw)).payload if "grpc" in form else raw
            assert pb.Generation.FromString(raw).id == generation_id


async def test_errors_over_http_have_the_form_of_the_call(
    deployment: Deployment, web: aiohttp.ClientSession
) -> None:
    for form, status in (
        ("application/json", 401), ("application/grpc-web", 200), ("application/connect+json", 200),
    ):  # fmt: skip
        method = "Attach" if form.endswith("connect+json") else "Get"
        headers = {"content-type": form}
        async with aiohttp.ClientSession(deployment.urls[0]) as nobody:
            async with nobody.post(PATH + method, data=b"", headers=headers) as answer:
                assert answer.status == status
                raw = await answer.read()
        assert b"grpc-status: 16" in raw or b'"code":"unauthenticated"' in raw
    async with web.post(PATH + "Get", json={"id": MISSING}) as answer:
        assert (answer.status, (await answer.json())["code"]) == (404, "not_found")


# Attacks


async def test_garbage_on_the_port_hurts_nobody(deployment: Deployment, alice: GrpcClient) -> None:
    host, _, port = deployment.api[0].grpc_target.partition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for data in (
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01" * 99, preface + b"\xff" * 9_000,
        preface + b"\0\0\0\x04\0\0\0\0\0" + b"\0\xff\xff\x01\x25\0\0\0\x01" + b"\x88" * 70_000,
    ):  # fmt: skip
        with socket.create_connection((host, int(port))) as peer:
            peer.settimeout(5)
            try:
                peer.sendall(data)
                while peer.recv(65_536):
                    pass
            except OSError:
                pass
    assert await whole(alice.call("Generate", generate_request(BODY)))


async def test_a_message_that_is_too_large_is_refused(alice: GrpcClient) -> None:
    code, _ = await refused(alice.call("Start", pb.GenerateRequest(prompt="x" * 9_000_000)))

    assert code in (Code.RESOURCE_EXHAUSTED, Code.CANCELLED)
    assert await alice.start(BODY)


async def test_a_thousand_streams_on_one_connection(deployment: Deployment) -> None:
    """The token allows so many readers."""
    token = hmac_token(sub="dave", limits={"connections_max": 2_000})
    async with GrpcClient(deployment.api[0].grpc_target, token) as client:
        generation_id = await client.start(demo_body(4, 4))
        request = pb.AttachRequest(id=generation_id)
        calls = [client.call("Attach", request, timeout_s=60) for _ in range(1_000)]
        counts = await asyncio.gather(*(count(call) for call in calls))

    assert set(counts) == {counts[0]} and counts[0] > 4


async def count(call: Any) -> int:
    return sum([1 async for _ in events_of(call)])


# Starting


async def test_without_the_extra_a_node_with_the_port_says_what_to_install(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "grpc.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings = deployment.api[0].settings | {"TAILRACE_PORT": "0"}
    code, said = await run_role("api", settings, imports_anew=True)

    assert code == 2
    assert "pip install 'tailrace[grpc]'" in said and "Traceback" not in said


async def test_a_port_that_is_taken_is_one_line(deployment: Deployment) -> None:
    code, said = await run_role("api", deployment.api[0].settings | {"TAILRACE_PORT": "0"})

    assert code == 2
    assert "--grpc-port names another" in said and "Traceback" not in said
