"""Credentials, owners and origins: a deployment with API keys and one allowed origin.

The node delays refusals of one address by seconds, so each client has an address of its own, which
a proxy names.
"""

from __future__ import annotations

import itertools
import uuid

import pytest
import websockets

from tests.support.demo import demo_body
from tests.support.processes import run_role
from tests.support.raw_client import RawClient, hear, tell

SHORT = demo_body(2, 0)
ALICE, BOB = "key-of-alice-1234567890", "key-of-bob-1234567890"
OLGA = "key-of-olga-1234567890"  # an operator
ORIGIN = "https://app.example"
ADDRESSES = itertools.count(1)
PROTECTED = [
    ("POST", "/v1/generations"),
    ("GET", "/v1/generations/gen_x"),
    ("GET", "/v1/generations/gen_x/events"),
    ("POST", "/v1/generations/gen_x/cancel"),
    ("GET", "/v1/sessions/s"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/v1/workers"),
]


@pytest.fixture(scope="module")
async def deployment(own_deployment):
    settings = {
        "api_keys": f"{ALICE}:alice,{BOB}:bob,{OLGA}:olga:admin",
        "cors_origins": ORIGIN,
        "log": "json",
        "trusted_proxies": "127.0.0.0/8",
    }
    async with own_deployment(api=1, workers=1, settings=settings) as it:
        yield it


def client(deployment, key=""):
    sender = {"X-Forwarded-For": f"203.0.113.{next(ADDRESSES)}"}
    return RawClient(deployment.urls[0], key=key, sender=sender)


@pytest.fixture
async def api(deployment):
    async with client(deployment, ALICE) as raw_client:
        yield raw_client


@pytest.fixture
async def bob(deployment):
    async with client(deployment, BOB) as raw_client:
        yield raw_client


@pytest.fixture
async def olga(deployment):
    async with client(deployment, OLGA) as raw_client:
        yield raw_client


@pytest.mark.parametrize("method, path", PROTECTED)
async def test_a_request_without_credentials_is_401(api, method, path):
    answer = await api.call(method, path, anonymous=True)

    assert (answer.status, answer.error_code) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "header", ["Bearer wrong", "Bearer", "Bearer ", "Basic a2V5OmtleQ==", ALICE, f"Token {ALICE}"]
)
async def test_bad_credentials_are_401(api, header):
    answer = await api.get("/v1/models", anonymous=True, headers={"Authorization": header})

    assert answer.status == 401


async def test_a_bearer_key_is_accepted(api):
    assert (await api.get("/v1/models")).status == 200


async def test_a_key_in_the_query_is_accepted_and_no_log_shows_the_key(api, deployment):
    generation_id = await api.finished(SHORT)
    path = f"/v1/generations/{generation_id}/events?access_token={ALICE}"

    answer = await api.get(path, anonymous=True)

    assert answer.status == 200
    assert answer.events[-1].type == "end"
    assert all(ALICE not in role.output.read_text() for role in deployment.roles)


async def test_a_bad_key_in_the_query_is_401(api):
    assert (await api.get("/v1/models?access_token=nope", anonymous=True)).status == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/docs"])
async def test_open_routes_need_no_key(api, path):
    assert (await api.get(path, anonymous=True)).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/v1/workers"])
async def test_an_operators_key_opens_routes_that_refuse_an_ordinary_key(api, olga, path):
    refused = await api.get(path)

    assert (refused.status, refused.error_code) == (403, "forbidden")
    assert (await olga.get(path)).status == 200


@pytest.mark.parametrize("path", ["/v1/schedules", "/v1/batches"])
async def test_an_operator_may_list_the_work_of_others(api, olga, path):
    for owner in ("alice", "bob", "*"):
        assert (await olga.get(f"{path}?owner={owner}")).status == 200
    for owner, status in (("alice", 200), ("bob", 403), ("*", 403)):
        assert (await api.get(f"{path}?owner={owner}")).status == status


async def test_an_operator_may_end_the_schedule_of_any_owner(api, olga):
    planned = (await api.post(SHORT | {"cron": "0 8 * * *"})).json()
    listed = (await olga.get("/v1/schedules?owner=alice")).json()["schedules"]

    assert [(one["id"], one["owner"]) for one in listed] == [(planned["id"], "alice")]
    gone = await olga.call("DELETE", f"/v1/schedules/{planned['id']}")
    assert gone.json()["deleted"] is True
    assert (await api.get(f"/v1/schedules/{planned['id']}")).status == 404


@pytest.mark.parametrize("method, rest", [("GET", ""), ("GET", "/events"), ("POST", "/cancel")])
async def test_another_owners_generation_is_404(api, bob, method, rest):
    generation_id = await api.finished(SHORT)

    answer = await bob.call(method, f"/v1/generations/{generation_id}{rest}")

    assert (answer.status, answer.error_code) == (404, "not_found")


async def test_another_owners_generation_is_not_found_on_a_socket(api, bob):
    generation_id = await api.finished(SHORT)

    async with bob.socket() as socket:
        for kind in ("subscribe", "cancel"):
            await tell(socket, type=kind, id=generation_id)
            error = await hear(socket)
            assert (error["type"], error["code"]) == ("error", "not_found")


async def test_a_session_name_belongs_to_its_owner(api, bob):
    name = uuid.uuid4().hex
    mine = await api.start(SHORT | {"session": name})
    his = await bob.start(SHORT | {"session": name})

    body = (await bob.get(f"/v1/sessions/{name}")).json()

    assert [g["id"] for g in body["generations"]] == [his]
    assert mine != his


async def test_an_idempotency_key_belongs_to_its_owner(api, bob):
    headers = {"Idempotency-Key": uuid.uuid4().hex}

    mine, his = await api.start(SHORT, headers=headers), await bob.start(SHORT, headers=headers)

    assert mine != his


async def test_a_socket_without_credentials_is_refused_at_the_handshake(api):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with api.socket(additional_headers={"Authorization": ""}):
            pass

    assert refused.value.response.status_code == 401


async def test_a_browsers_socket_without_credentials_gets_an_error_and_close_code_4501(api):
    headers = {"Authorization": "", "Origin": ORIGIN}

    async with api.socket(additional_headers=headers) as socket:
        error = await hear(socket)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await hear(socket)

    assert (error["type"], error["code"]) == ("error", "unauthorized")
    assert closed.value.rcvd.code == 4501


async def test_a_socket_accepts_a_key_in_the_query(api):
    headers = {"Authorization": "", "Origin": ORIGIN}

    async with api.socket(query=f"?access_token={ALICE}", additional_headers=headers) as socket:
        await tell(socket, type="ping")
        assert await hear(socket) == {"type": "pong"}


@pytest.mark.parametrize("name", ["api-key", "x-api-key", "Authorization"])
async def test_a_key_is_taken_in_every_header(api, name):
    value = f"Bearer {ALICE}" if name == "Authorization" else ALICE

    answer = await api.get("/v1/models", anonymous=True, headers={name: value})
    wrong = await api.get("/v1/models", anonymous=True, headers={name: value + "x"})

    assert (answer.status, wrong.status) == (200, 401)


async def test_a_socket_takes_its_key_as_a_subprotocol_and_answers_with_another(deployment):
    async with client(deployment) as stranger:
        offered = [f"bearer.{ALICE}", "tailrace.v1"]
        async with stranger.socket(subprotocols=offered) as socket:
            assert socket.subprotocol == "tailrace.v1"
            await tell(socket, type="ping")
            assert await hear(socket) == {"type": "pong"}


async def test_a_socket_without_credentials_brings_them_in_its_first_frame(deployment):
    async with client(deployment) as stranger, stranger.socket() as socket:
        await tell(socket, type="auth", token=ALICE)
        await tell(socket, type="start", ref="r", **SHORT)
        accepted = await hear(socket)

    assert (accepted["type"], accepted["ref"]) == ("accepted", "r")


@pytest.mark.parametrize(
    "frame",
    [{"type": "start", **SHORT}, {"type": "auth", "token": "wrong"}, {"type": "auth"}],
    ids=["start", "wrong", "empty"],
)
async def test_any_other_first_frame_is_4501(deployment, frame):
    async with client(deployment) as stranger, stranger.socket() as socket:
        await tell(socket, **frame)
        error = await hear(socket)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await hear(socket)

    assert (error["type"], error["code"]) == ("error", "unauthorized")
    assert closed.value.rcvd.code == 4501


async def test_a_share_reads_one_generation_until_it_is_deleted(api, deployment):
    shown, other = await api.finished(SHORT), await api.finished(SHORT)
    made = (await api.call("POST", "/v1/share", body={"generation": shown, "ttl_s": 60})).json()
    async with client(deployment, made["token"]) as guest:
        assert (await guest.events(shown)).events[-1].type == "end"
        assert (await guest.get(f"/v1/generations/{other}")).status == 404
        assert (await guest.post(SHORT)).status == 403
        assert (await api.call("DELETE", f"/v1/share/{made['id']}")).status == 200
        assert (await guest.events(shown)).status == 401


async def test_a_refused_origin_is_403_with_any_key(api):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with api.socket(additional_headers={"Origin": "https://evil.example"}):
            pass

    assert refused.value.response.status_code == 403


async def test_an_allowed_origin_may_read(api):
    answer = await api.get("/v1/models", headers={"Origin": ORIGIN})

    assert answer.headers["Access-Control-Allow-Origin"] in (ORIGIN, "*")
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    for name in ("location", "x-generation-id", "x-heartbeat-s", "retry-after"):
        assert name in exposed


async def test_an_allowed_origin_may_read_an_error(api):
    answer = await api.get("/v1/models", anonymous=True, headers={"Origin": ORIGIN})

    assert answer.status == 401
    assert answer.headers["Access-Control-Allow-Origin"] in (ORIGIN, "*")


async def test_a_preflight_needs_no_key_and_allows_the_documented_headers(api):
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }

    answer = await api.call("OPTIONS", "/v1/generations", anonymous=True, headers=headers)

    assert answer.status in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] in (ORIGIN, "*")
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    for name in ("authorization", "content-type", "last-event-id", "idempotency-key"):
        assert name in allowed
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_origin_may_not_start_or_end_anything(api, headers):
    generation_id = await api.finished(SHORT)
    for method, path in (
        ("POST", "/v1/generations"),
        ("POST", f"/v1/generations/{generation_id}/cancel"),
        ("DELETE", "/v1/schedules/sched_x"),
    ):
        answer = await api.call(method, path, headers=headers, body=SHORT)
        assert (answer.status, answer.error_code) == (403, "forbidden")


async def test_an_allowed_origin_and_the_nodes_own_may_start(api, deployment):
    for origin in (ORIGIN, deployment.urls[0]):
        assert (await api.post(SHORT, headers={"Origin": origin})).status == 202


async def test_another_origin_may_not_read(api):
    answer = await api.get("/v1/models", headers={"Origin": "https://evil.example"})

    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_listening_beyond_loopback_needs_credentials_or_an_explicit_setting(deployment):
    settings = dict(deployment.api[0].settings, TAILRACE_HOST="0.0.0.0", TAILRACE_PORT="0")
    del settings["TAILRACE_API_KEYS"]

    code, said = await run_role("api", settings)

    assert code == 2
    assert len(said.strip().splitlines()) == 1, said
    assert "TAILRACE_AUTH" in said or "TAILRACE_API_KEYS" in said


@pytest.mark.parametrize("role", ["api", "worker", "jobs"])
async def test_a_misspelt_setting_is_one_line_and_exit_2(deployment, role):
    settings = dict(deployment.api[0].settings, TAILRACE_LEASE="3")

    code, said = await run_role(role, settings)

    assert code == 2
    assert len(said.strip().splitlines()) == 1, said
    assert "TAILRACE_LEASE" in said


async def test_a_taken_port_is_one_line_and_exit_2(deployment):
    code, said = await run_role("api", deployment.api[0].settings)

    assert code == 2
    assert len(said.strip().splitlines()) == 1, said
    assert str(deployment.api[0].port) in said
