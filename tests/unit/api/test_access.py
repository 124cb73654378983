"""The table of scopes: every route and every frame has a row, and each row is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.access import ANY, FRAMES, PUBLIC, ROUTES
from api.app import DIALECTS, guard, http_routes, sockets, unguarded_routes
from api.dialects.endpoints import http_route
from api.edge.method_dispatch import Resource
from shared.config.credentials import ADMIN, ORDINARY, SCOPES
from tests.support.shell import Shell
from tests.support.tokens import SECRET, hmac_token

SOME_SCOPES = {"generate", "read", "batch", "schedules", "admin"}
CELLS = [(path, method, needed) for path, row in ROUTES.items() for method, needed in row.items()]
GUARDED = [cell for cell in CELLS if cell[2] != PUBLIC]


def path_of(route: str) -> str:
    """Return a path that the route matches, without anything behind it."""
    for name in ("{id}", "{name}", "{session:path}", "{model:path}"):
        route = route.replace(name, "gen_00000000")
    return route


def status_free(status: int) -> bool:
    """Whether an answer shows that the request came to its handler."""
    return status not in (401, 403)


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell(jwt_secret=SECRET)
    async with shell.client:
        yield shell


def test_the_table_has_exactly_the_routes_and_methods_of_a_node() -> None:
    local_node = {
        (route.path, method)
        for route in unguarded_routes(Shell().node)
        for method in route.endpoint.methods
        if method != "HEAD"
    }

    assert local_node == {(path, method) for path, method, _ in CELLS}


def test_a_route_without_a_row_stops_the_start() -> None:
    async def handler(request: object) -> None: ...

    with pytest.raises(KeyError):
        guard(Shell().node, http_route("/v1/new", GET=handler))
    with pytest.raises(KeyError):
        guard(Shell().node, http_route("/v1/generations", GET=handler, DELETE=handler))


def test_every_route_of_a_node_is_guarded() -> None:
    for route in http_routes(Shell().node):
        assert isinstance(route.endpoint, Resource) and route.endpoint.admit is not None


def test_the_table_has_exactly_the_sockets_of_a_node_and_known_scopes() -> None:
    assert {socket.path for socket in sockets(Shell().node)} == set(FRAMES)
    assert len(FRAMES) < len(DIALECTS) + 1
    needed = {each for row in (*ROUTES.values(), *FRAMES.values()) for each in row.values()}
    assert needed <= {*SCOPES, ANY, PUBLIC}


EXPIRED = hmac_token(exp=1)
ENDLESS = "/v1/console"  # its stream goes on until the client leaves


async def begin(shell: Shell, method: str, headers: dict[str, str]) -> tuple[int, str]:
    """Ask for the stream without an end, and leave after the first piece of the body."""
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
        "path": ENDLESS, "raw_path": ENDLESS.encode(), "query_string": b"",
        "headers": [(b"host", b"localhost"), *(
            (name.encode(), value.encode()) for name, value in headers.items()
        )],
    }  # fmt: skip
    said: list[dict[str, Any]] = []
    has_begun = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await has_begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)
        if message["type"] == "http.response.body":
            has_begun.set()

    async with asyncio.timeout(10):
        await shell.app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in said[1:])
    return int(said[0]["status"]), body.decode()


@pytest.mark.parametrize(("path", "method", "needed"), GUARDED, ids=lambda value: str(value))
async def test_a_route_needs_good_credentials_and_its_scope(
    shell: Shell, path: str, method: str, needed: str
) -> None:
    """Credentials with the scope alone come to the handler, all other scopes together do not."""

    async def call(token: str | None) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        if path == ENDLESS:
            return await begin(shell, method, headers)
        answer = await shell.client.request(method, path_of(path), headers=headers)
        return answer.status_code, answer.text

    for bad in (None, EXPIRED):
        assert (await call(bad))[0] == 401, bad
    with_it = hmac_token(scope=needed if needed != ANY else "")
    without = hmac_token(scope=" ".join(SOME_SCOPES - {needed, ADMIN}))

    assert status_free((await call(with_it))[0])
    status, text = await call(without)
    if needed == ANY:
        assert status_free(status)
    else:
        assert status == 403 and "forbidden" in text or path == "/deep-chat"
        assert needed in text


@pytest.mark.parametrize("bad", ["wrong", hmac_token("x" * 32), hmac_token(sub="*")])
async def test_other_bad_credentials_are_refused(shell: Shell, bad: str) -> None:
    """Every route has the same check: see `test_every_route_of_a_node_is_guarded`."""
    headers = {"authorization": f"Bearer {bad}"}

    assert (await shell.client.get("/v1/generations", headers=headers)).status_code == 401


@pytest.mark.parametrize("needed", sorted(ORDINARY))
async def test_an_operator_may_do_what_the_other_scopes_allow(shell: Shell, needed: str) -> None:
    (path, method, _) = next(cell for cell in GUARDED if cell[2] == needed)
    headers = {"authorization": f"Bearer {hmac_token(scope='admin')}"}

    assert status_free(
        (await shell.client.request(method, path_of(path), headers=headers)).status_code
    )


# Their handlers check the token of a wake (tests/conformance/test_streams.py).
OF_WAKES = [
    f"/ds/v1/stream/__ds/subscriptions/{{id}}/{what}" for what in ("callback", "ack", "release")
]


@pytest.mark.parametrize(
    ("path", "method"), [(p, m) for p, m, needed in CELLS if needed == PUBLIC and p not in OF_WAKES]
)
async def test_public_routes_need_no_credentials(shell: Shell, path: str, method: str) -> None:
    assert status_free((await shell.client.request(method, path_of(path))).status_code)


@pytest.mark.parametrize("members", [{"run_at": 9_999_999_999}, {"cron": "0 8 * * *"}])
async def test_a_start_for_later_also_needs_the_scope_schedules(
    shell: Shell, members: dict[str, object]
) -> None:
    async def plan(scope: str) -> int:
        headers = {"authorization": f"Bearer {hmac_token(scope=scope)}"}
        body = {"prompt": "Hi", **members}
        return (await shell.client.post("/v1/generations", json=body, headers=headers)).status_code

    assert await plan("generate") == 403
    assert await plan("schedules") == 403
    assert status_free(await plan("generate schedules"))


async def test_the_owner_of_a_token_that_plans_is_noted_for_the_jobs_role(shell: Shell) -> None:
    headers = {"authorization": f"Bearer {hmac_token(sub='tom')}"}
    body = {"prompt": "Hi", "cron": "0 8 * * *"}
    await shell.client.post("/v1/generations", json={"prompt": "Hi"}, headers=headers)
    assert await shell.redis.zcard("tr:{jobs}:token-owners") == 0

    await shell.client.post("/v1/generations", json=body, headers=headers)

    assert await shell.redis.zcard("tr:{jobs}:token-owners") == 1
    assert shell.node.seen_owners.take() == {"tom"}


async def test_a_token_is_checked_once_and_names_its_owner(shell: Shell) -> None:
    token = {"authorization": f"Bearer {hmac_token(sub='alice')}"}
    made = await shell.client.post("/v1/generations", json={"prompt": "Hi"}, headers=token)

    by_key = await shell.get(f"/v1/generations/{made.json()['id']}")
    by_other = await shell.get(
        f"/v1/generations/{made.json()['id']}",
        authorization=f"Bearer {hmac_token(sub='mallory')}",
    )

    assert (by_key.status_code, by_other.status_code) == (200, 404)


OF_ONE_OWNER = [
    (path, method, needed)
    for path, method, needed in GUARDED
    if ("{id}" in path or "{name}" in path)
    and needed != ADMIN  # operators see what there is
    and "/__ds/" not in path  # the id of a subscription is a name of its owner's own
]


@pytest.mark.parametrize(("path", "method", "needed"), OF_ONE_OWNER, ids=str)
async def test_what_another_owner_has_is_answered_like_what_does_not_exist(
    shell: Shell, path: str, method: str, needed: str
) -> None:
    """A generation of alice under every path with an id, asked for by a token of mallory."""
    made = await shell.post({"prompt": "Hi", "session": "s"})
    mallory = {"authorization": f"Bearer {hmac_token(sub='mallory', scope=needed)}"}

    async def answer(name: str) -> tuple[int, str]:
        for place in ("{id}", "{name}"):
            name = path.replace(place, name) if place in path else name
        found = await shell.client.request(method, name, headers=mallory)
        return found.status_code, found.text

    theirs, absent = await answer(made.json()["id"]), await answer("gen_" + "0" * 26)

    assert theirs == absent
    assert theirs[0] in (204, 404), "204: a chat without a running answer, and its stop"
