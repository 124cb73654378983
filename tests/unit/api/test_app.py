"""The application of an API node without sockets: routes, owners, listings, probes, bad input.

The store is the real one on a fake Redis. The hub is a stand-in, because streams have their own
tests (tests/unit/api/hub, tests/integration, tests/conformance).
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import api.dialects
from api.app import DIALECTS, http_routes
from api.dialects.endpoints import DialectEndpoints
from api.pages.openapi.document import DOCUMENT
from api.pages.pages import DIRECTORY
from shared.log.events import End, Token
from shared.redis import keys
from tests.support.examples import examples
from tests.support.local_node import ManualWorker
from tests.support.shell import ALICE, BOB, OPERATOR, Shell

DONE = End(status="completed", finish_reason="stop")


FIELDS: dict[str, str | bytes] = {
    "owner": "alice",
    "session": "",
    "model": "demo",
    "priority": "interactive",
    "metadata": b"{}",
    "request": b'{"messages":[]}',
}


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    made = Shell()
    yield made
    await made.client.aclose()
    await made.redis.aclose()


@pytest.fixture
async def open_shell() -> AsyncIterator[Shell]:
    made = Shell(api_keys="")
    yield made
    await made.client.aclose()
    await made.redis.aclose()


def code(response: httpx2.Response) -> str:
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"code", "message", "retryable"}
    return str(error["code"])


# Starting a generation


async def test_a_prompt_is_accepted(shell: Shell) -> None:
    response = await shell.post({"prompt": "Hi", "session": "s", "model": "other"})
    body = response.json()

    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/generations/{body['id']}"
    assert body["events_url"] == f"/v1/generations/{body['id']}/events"
    assert (body["status"], body["model"], body["session"]) == ("queued", "other", "s")
    assert isinstance(body["created_at"], int)


async def test_a_repeat_with_the_same_key_finds_the_first_generation(shell: Shell) -> None:
    first = await shell.post({"prompt": "Hi"}, idempotency_key="k")
    again = await shell.post({"prompt": "Hi", "unknown": 1}, idempotency_key="k")
    other = await shell.post({"prompt": "Ho"}, idempotency_key="k")

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    assert (other.status_code, code(other)) == (422, "idempotency_mismatch")


async def test_the_same_key_of_two_owners_creates_two_generations(shell: Shell) -> None:
    mine = await shell.post(idempotency_key="k")
    theirs = await shell.post(idempotency_key="k", **BOB)

    assert mine.json()["id"] != theirs.json()["id"]


async def test_a_full_queue_is_503(shell: Shell) -> None:
    small = Shell(queue_max=1)
    assert (await small.post()).status_code == 202
    response = await small.post()

    assert (response.status_code, code(response)) == (503, "queue_full")
    assert "retry-after" in response.headers


async def test_a_draining_node_takes_no_prompts_and_still_cancels(shell: Shell) -> None:
    generation_id = (await shell.post()).json()["id"]
    shell.node.is_draining = True
    response = await shell.post()
    cancelled = await shell.client.post(f"/v1/generations/{generation_id}/cancel", headers=ALICE)

    assert (response.status_code, code(response)) == (503, "draining")
    assert response.headers["retry-after"] == "1"
    assert cancelled.status_code == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"accept": "text/html"}, 406),
        ({"idempotency_key": ""}, 400),
        ({"idempotency_key": "a b"}, 400),
        ({"last_event_id": "x"}, 400),
        ({"authorization": "Bearer gamma"}, 401),
    ],
)
async def test_a_wrong_header_is_refused_with_its_status(
    shell: Shell, headers: dict[str, str], status: int
) -> None:
    assert (await shell.post(**headers)).status_code == status


# Snapshots and cancellation


async def test_a_snapshot_has_the_text_so_far(shell: Shell) -> None:
    manual_worker = await ManualWorker.take(shell.store, owner="alice")
    await manual_worker.append(Token("Hel"), Token("lo"))
    body = (await shell.get(f"/v1/generations/{manual_worker.generation_id}")).json()

    assert (body["status"], body["text"]) == ("running", "Hello")
    assert body["last_event_id"] == f"{manual_worker.attempt}-3"
    assert body["attempt"] == manual_worker.attempt


async def test_a_long_log_is_read_in_pages(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.log.log_reader.PAGE_ENTRIES", 3)
    for count in range(1, 9):
        manual_worker = await ManualWorker.take(shell.store, owner="alice", token=f"t{count}")
        await manual_worker.append(*(Token(str(number)) for number in range(count)))
        body = (await shell.get(f"/v1/generations/{manual_worker.generation_id}")).json()

        assert body["text"] == "".join(map(str, range(count)))


async def test_an_expired_log_is_410(shell: Shell) -> None:
    manual_worker = await ManualWorker.take(shell.store, owner="alice")
    await manual_worker.append(DONE)
    await shell.redis.delete(keys.log(manual_worker.generation_id))
    response = await shell.get(f"/v1/generations/{manual_worker.generation_id}")

    assert (response.status_code, code(response)) == (410, "expired")


async def test_a_sealed_generation_is_404(shell: Shell) -> None:
    manual_worker = await ManualWorker.take(shell.store, owner="alice")
    await shell.redis.flushall()
    await shell.store.seal(manual_worker.generation_id)

    for path in ("", "/events"):
        response = await shell.get(f"/v1/generations/{manual_worker.generation_id}{path}")
        assert (response.status_code, code(response)) == (404, "not_found")


async def test_cancelling_is_final_and_may_be_repeated(shell: Shell) -> None:
    generation_id = (await shell.post()).json()["id"]
    path = f"/v1/generations/{generation_id}"
    first = await shell.client.post(path + "/cancel", headers=ALICE)
    again = await shell.client.post(path + "/cancel", headers=ALICE)
    body = (await shell.get(path)).json()

    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json() == {"id": generation_id, "status": "cancelled"}
    assert (body["status"], body["finish_reason"]) == ("cancelled", "cancelled")


async def test_cancelling_an_ended_generation_changes_nothing(shell: Shell) -> None:
    manual_worker = await ManualWorker.take(shell.store, owner="alice")
    await manual_worker.append(Token("x"), DONE)
    path = f"/v1/generations/{manual_worker.generation_id}"
    response = await shell.client.post(path + "/cancel", headers=ALICE)

    assert (response.status_code, response.json()["status"]) == (202, "completed")
    assert (await shell.get(path)).json()["text"] == "x"


# Owners and keys


async def test_a_generation_of_another_owner_is_404_on_every_path(shell: Shell) -> None:
    generation_id = (await shell.post({"prompt": "x", "session": "s"})).json()["id"]
    path = f"/v1/generations/{generation_id}"
    answers = [
        await shell.client.get(path, headers=BOB),
        await shell.client.get(path + "/events", headers=BOB),
        await shell.client.post(path + "/cancel", headers=BOB),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert (await shell.get(path)).json()["status"] == "queued"
    for listing in ("/v1/sessions/s", "/v1/generations"):
        assert (await shell.get(listing, **BOB)).json()["generations"] == []
        assert len((await shell.get(listing)).json()["generations"]) == 1


PROTECTED = [
    ("POST", "/v1/generations"),
    ("GET", "/v1/generations"),
    ("GET", "/v1/generations/gen_12345678"),
    ("GET", "/v1/generations/gen_12345678/events"),
    ("POST", "/v1/generations/gen_12345678/cancel"),
    ("GET", "/v1/sessions/s"),
    ("GET", "/v1/models"),
    ("GET", "/v1/workers"),
    ("GET", "/v1/backends"),
    ("GET", "/metrics"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_without_a_key_it_is_401(shell: Shell, method: str, path: str) -> None:
    response = await shell.client.request(method, path)

    assert (response.status_code, code(response)) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/v1/workers", "/v1/backends", "/metrics"])
async def test_views_of_all_owners_need_an_operators_key(shell: Shell, path: str) -> None:
    response = await shell.get(path)

    assert (response.status_code, code(response)) == (403, "forbidden")
    assert (await shell.get(path, **OPERATOR)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/workers", "/v1/backends", "/metrics"])
async def test_without_configured_keys_every_client_is_an_operator(
    open_shell: Shell, path: str
) -> None:
    assert (await open_shell.client.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/", "/docs", "/openapi.json"])
async def test_probes_and_pages_need_no_key(shell: Shell, path: str) -> None:
    assert (await shell.client.get(path)).status_code in (200, 503)


async def test_a_key_in_the_query_is_accepted_and_not_logged(
    shell: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert (await shell.client.get("/v1/models?access_token=alpha")).status_code == 200
        await shell.redis.aclose()

    ours = [record.getMessage() for record in caplog.records if record.name.startswith("api")]
    assert not any("alpha" in line for line in ours)


# Listings


async def test_a_session_lists_newest_first_with_prompts(open_shell: Shell) -> None:
    ids = []
    for number in range(3):
        response = await open_shell.post({"prompt": f"p{number}", "session": "a/b c"})
        ids.append(response.json()["id"])
        await open_shell.redis.zadd(keys.session("anonymous", "a/b c"), {ids[-1]: 10**13 + number})
    await open_shell.client.post(f"/v1/generations/{ids[1]}/cancel")
    body = (await open_shell.get("/v1/sessions/a%2Fb%20c")).json()

    assert body["session"] == "a/b c"
    assert [item["id"] for item in body["generations"]] == ids[::-1]
    assert [item["prompt"] for item in body["generations"]] == ["p2", "p1", "p0"]
    assert body["active"] == [ids[2], ids[0]]
    assert body["next_before"] is None


async def test_an_unknown_session_is_empty(shell: Shell) -> None:
    body = (await shell.get("/v1/sessions/nobody")).json()

    assert (body["generations"], body["active"]) == ([], [])


async def test_a_page_has_at_most_100_rows_and_links_the_next_page(shell: Shell) -> None:
    ids = [f"gen_{number:08}" for number in range(105)]
    for number, generation_id in enumerate(ids):
        await shell.store.create(generation_id, FIELDS, may_be_lost=False)
        await shell.redis.hset(keys.meta(generation_id), "created", 1000 + number)
        await shell.redis.zadd(keys.owner("alice"), {generation_id: 1000 + number})
    seen: list[str] = []
    path = "/v1/generations"
    for _ in range(3):
        body = (await shell.get(path)).json()
        assert len(body["generations"]) <= 100
        seen += [item["id"] for item in body["generations"]]
        if body["next_before"] is None:
            break
        path = f"/v1/generations?before={body['next_before']}"

    assert seen == ids[::-1]


async def test_active_lists_only_unfinished_generations(shell: Shell) -> None:
    ended, running = (await shell.post()).json()["id"], (await shell.post()).json()["id"]
    await shell.client.post(f"/v1/generations/{ended}/cancel", headers=ALICE)
    body = (await shell.get("/v1/generations?active=1")).json()

    assert [item["id"] for item in body["generations"]] == [running]


async def test_models_have_the_shape_of_openai(shell: Shell) -> None:
    body = (await shell.get("/v1/models")).json()

    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["demo", "other"]
    assert body["data"][0]["object"] == "model"


async def test_the_list_of_workers_shows_workers_and_queue_lengths(shell: Shell) -> None:
    await shell.announce(age_ms=1500)
    await shell.post()
    body = (await shell.get("/v1/workers", **OPERATOR)).json()

    assert body["workers"][0]["id"] == "w1"
    assert 1.5 <= body["workers"][0]["seen_s"] < 10
    assert body["queue"]["interactive"] == 1


# Probes and metrics


async def test_a_node_is_ready_when_every_check_holds(shell: Shell) -> None:
    await shell.announce()
    response = await shell.client.get("/readyz")

    assert response.status_code == 200
    assert all(response.json()["checks"].values())


async def test_older_credentials_than_there_should_be_degrade_a_node_that_stays_ready(
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys"
    path.write_text("alpha:alice")
    shell = Shell(api_keys=str(path))
    await shell.announce()
    path.unlink()
    await shell.node.authenticator.look_at_key_file()
    response = await shell.client.get("/readyz")

    body = response.json()
    assert (response.status_code, body["status"]) == (200, "degraded")
    assert body["degraded"] == ["api_keys"]
    assert str(path) not in response.text


def drain(shell: Shell) -> None:
    shell.node.is_draining = True


def deafen(shell: Shell) -> None:
    shell.hub.is_live = False


def disconnect(shell: Shell) -> None:
    shell.server.connected = False


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        (drain, {"not_draining"}),
        (deafen, {"live_connection"}),
        (disconnect, {"redis", "worker"}),
    ],
)
async def test_a_node_that_is_not_ready_names_the_failed_checks(
    shell: Shell, harm: Callable[[Shell], None], missing: set[str]
) -> None:
    await shell.announce()
    harm(shell)
    response = await shell.client.get("/readyz")

    assert response.status_code == 503
    checks = response.json()["checks"]
    assert {name for name, holds in checks.items() if not holds} == missing
    assert (await shell.client.get("/livez")).status_code == 200


@pytest.mark.parametrize("worker", [{"age_ms": 10_000}, {"is_draining": True}, None])
async def test_a_worker_that_takes_no_entries_does_not_count_as_ready(
    shell: Shell, worker: dict[str, Any] | None
) -> None:
    if worker is not None:
        await shell.announce(**worker)

    assert (await shell.client.get("/readyz")).json()["checks"]["worker"] is False


async def test_redis_away_is_503_with_retry_after(shell: Shell) -> None:
    generation_id = (await shell.post()).json()["id"]
    shell.server.connected = False
    path = f"/v1/generations/{generation_id}"
    answers = [
        await shell.post(),
        await shell.get(path),
        await shell.client.post(path + "/cancel", headers=ALICE),
        await shell.get("/v1/sessions/s"),
        await shell.get("/v1/workers", **OPERATOR),
        await shell.get(path + "/events"),
    ]

    assert [(answer.status_code, code(answer)) for answer in answers] == [(503, "unavailable")] * 6
    assert all("retry-after" in answer.headers for answer in answers)
    assert (await shell.get("/v1/models")).status_code == 200


async def test_metrics_are_labelled_with_routes_and_not_with_paths(shell: Shell) -> None:
    await shell.announce()
    await shell.post()
    await shell.post(authorization="x")
    await shell.get("/v1/generations/gen_12345678")
    await shell.client.request("BREW", "/coffee")
    text = (await shell.get("/metrics", **OPERATOR)).text

    for line in (
        'http_requests_total{method="POST",route="/v1/generations",status="202"} 1.0',
        'http_requests_total{method="POST",route="/v1/generations",status="401"} 1.0',
        'http_requests_total{method="GET",route="/v1/generations/{id}",status="404"} 1.0',
        'http_requests_total{method="other",route="none",status="404"} 1.0',
        'generations_accepted_total{priority="interactive"} 1.0',
        'queue_depth{state="interactive"} 1.0',
        'queue_oldest_seconds{priority="batch"} 0.0',
        'worker_running{worker="w1"} 7.0',
        'worker_total{what="generations",worker="w1"} 3.0',
        "redis_up 1.0",
    ):
        assert f"tailrace_{line}" in text
    assert "gen_12345678" not in text
    assert "coffee" not in text


async def test_metrics_are_served_while_redis_is_away(shell: Shell) -> None:
    await shell.announce()
    await shell.get("/metrics", **OPERATOR)
    shell.server.connected = False
    text = (await shell.get("/metrics", **OPERATOR)).text

    assert "tailrace_redis_up 0.0" in text
    assert "tailrace_queue_depth{" not in text
    assert "tailrace_queue_oldest_seconds{" not in text


# Routes and the OpenAPI document


def test_every_dialect_folder_is_listed_in_the_application() -> None:
    (directory,) = map(Path, api.dialects.__path__)
    for folder in sorted(path.parent.name for path in directory.glob("*/__init__.py")):
        module = importlib.import_module(f"api.dialects.{folder}.endpoints")
        found = [value for value in vars(module).values() if isinstance(value, DialectEndpoints)]
        assert found and all(endpoints in DIALECTS for endpoints in found), folder


async def test_openapi_describes_exactly_the_routes(shell: Shell) -> None:
    routes = {
        route.path.replace(":path", ""): {method.lower() for method in route.endpoint.methods}
        for route in http_routes(shell.node)
    }
    described = {path: set(methods) for path, methods in DOCUMENT["paths"].items()}

    assert described == routes


def test_every_reference_in_openapi_has_a_target() -> None:
    text = json.dumps(DOCUMENT)
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))

    assert names <= set(DOCUMENT["components"]["schemas"])
    operations = [each for methods in DOCUMENT["paths"].values() for each in methods.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("PUT", "/v1/generations", 405, "GET, HEAD, POST"),
        ("GET", "/v1/generations/gen_12345678/cancel", 405, "POST"),
        ("OPTIONS", "/v1/models", 405, "GET, HEAD"),
        ("GET", "/v1/ws", 400, None),
        ("GET", "/nowhere", 404, None),
        ("GET", "/v1/generations/", 404, None),
        ("GET", "/v1/sessions/", 404, None),
        ("GET", "/v1/sessions/" + "s" * 129, 404, None),
        ("GET", "/v1/generations?before=x", 400, None),
    ],
)
async def test_a_missing_path_or_method_is_refused_with_its_status(
    shell: Shell, method: str, path: str, status: int, allow: str | None
) -> None:
    response = await shell.client.request(method, path, headers=ALICE)

    assert response.status_code == status
    assert response.headers.get("allow") == allow
    assert code(response)


# Pages

SOURCE = DIRECTORY.parents[2] / "web"


@pytest.mark.parametrize("path", ["/", "/docs", "/page/chat.js", "/page/chat.css"])
async def test_pages_load_nothing_from_other_hosts(shell: Shell, path: str) -> None:
    response = await shell.client.get(path)

    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:|//|\*", policy)
    assert response.headers["x-content-type-options"] == "nosniff"
    if path in ("/", "/docs"):
        for source in re.findall(r'(?:src|href)="([^"]*)"', response.text):
            assert source.startswith(("/", "data:"))
        assert not re.search(r"<script(?![^>]*src=)|<style|style=| on\w+=", response.text)


def test_scripts_of_the_pages_never_insert_text_as_markup() -> None:
    scripts = [
        path for kind in ("src/**/*.ts", "src/**/*.js", "public/*.js") for path in SOURCE.glob(kind)
    ]
    for path in scripts:
        code_only = re.sub(r"//.*", "", path.read_text())
        assert not re.search(
            r"(inner|outer)HTML\s*\+?=[^=]|insertAdjacentHTML|document\.write|eval\(", code_only
        ), path

    assert scripts


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("gzip, br", "gzip"), ("br;q=1, gzip;q=0", None), ("", None)]
)
async def test_a_page_is_compressed_for_browsers_that_take_it(
    shell: Shell, accepted: str, encoding: str | None
) -> None:
    plain = (await shell.client.get("/page/chat.js", headers={"accept-encoding": ""})).content
    response = await shell.client.get("/page/chat.js", headers={"accept-encoding": accepted})

    assert response.headers.get("content-encoding") == encoding
    assert response.headers["vary"] == "accept-encoding"
    assert response.content == plain, "the client of the test has decompressed it"


async def test_browsers_keep_a_file_under_the_hash_of_its_content(shell: Shell) -> None:
    html = (await shell.client.get("/")).text
    (address,) = re.findall(r'"(/page/chat\.js\?v=[0-9a-f]+)"', html)

    assert "immutable" in (await shell.client.get(address)).headers["cache-control"]
    for other in ("/", "/page/chat.js", "/page/chat.js?v=0123456789abcdef"):
        assert (await shell.client.get(other)).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/page/chat.js"])
async def test_a_page_that_has_not_changed_is_not_sent_again(shell: Shell, path: str) -> None:
    tag = (await shell.client.get(path)).headers["etag"]
    again = await shell.client.get(path, headers={"if-none-match": f"W/{tag}"})
    other = await shell.client.get(path, headers={"if-none-match": '"another"'})

    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["..%2fapp.py", "%2e%2e/app.py", "chat", "nothing.js"])
async def test_only_the_files_of_the_pages_are_served(shell: Shell, name: str) -> None:
    assert (await shell.client.get(f"/page/{name}")).status_code == 404


# Any request

PATHS = st.sampled_from(
    ["/v1/generations", "/v1/generations/{}", "/v1/generations/{}/cancel", "/v1/sessions/{}"]
    + ["/v1/generations/{}/events", "/page/{}", "/{}", "/v1/models"]
)
HEADERS = st.dictionaries(
    st.sampled_from(["accept", "last-event-id", "idempotency-key", "content-type", "x-a"]),
    st.binary(max_size=12).filter(lambda value: not set(value) & {0, 10, 13}),
)


@settings(
    max_examples=examples(50, in_ci=150),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    path=PATHS,
    piece=st.text(max_size=12),
    query=st.dictionaries(st.sampled_from(["wait", "before", "last_event_id"]), st.text()),
    headers=HEADERS,
    body=st.binary(max_size=30) | st.just(b'{"prompt":"x"}'),
)
async def test_no_request_is_answered_with_500(
    open_shell: Shell,
    method: str,
    path: str,
    piece: str,
    query: dict[str, str],
    headers: dict[str, bytes],
    body: bytes,
) -> None:
    response = await open_shell.client.request(
        method,
        httpx2.URL("http://node" + path.format(quote(piece, safe="")), params=query),
        headers={"content-type": b"application/json", **headers},
        content=body,
    )

    assert response.status_code < 500
    if response.status_code >= 400 and method != "HEAD":
        assert code(response)


@pytest.mark.parametrize("path", ["/v1/models/", "/v1//models", "//models/", "/models/"])
async def test_the_models_are_found_under_every_form_of_the_path(shell: Shell, path: str) -> None:
    response = await shell.client.get(f"http://node{path}", headers=ALICE)

    assert response.status_code == 200
    assert response.json()["object"] == "list"


@pytest.mark.parametrize(
    "path", ["/v1/models/demo/", "/models/demo/", "/v1/models//demo", "//models//demo//"]
)
async def test_a_model_is_found_under_every_form_of_its_path(shell: Shell, path: str) -> None:
    response = await shell.client.get(f"http://node{path}", headers=ALICE)

    assert response.status_code == 200
    assert response.json()["id"] == "demo"


async def test_the_exact_name_of_a_model_comes_first(shell: Shell) -> None:
    models = dict(shell.node.models)
    shell.node.models = {**models, "demo/": replace(models["demo"], name="demo/")}

    assert (await shell.get("/v1/models/demo/")).json()["id"] == "demo/"


@pytest.mark.parametrize("path", ["/v1//chat/none", "/responses/resp_none/", "/files/file-none/"])
async def test_an_error_under_a_mended_path_has_the_shape_of_its_resource(
    shell: Shell, path: str
) -> None:
    response = await shell.client.get(f"http://node{path}", headers=ALICE)

    assert response.status_code == 404
    assert "param" in response.json()["error"]
