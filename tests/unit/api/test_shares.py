"""Shares: tokens that read one generation or one session, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.access import PUBLIC, ROUTES, SHARED
from api.dialects.grpc.routes import SERVICE
from shared.later import shares as shares_module
from shared.later.shares import TTL_S_MAX
from shared.redis import keys
from tests.support.shell import ALICE, BOB, OPERATOR, Shell
from tests.support.tokens import SECRET, hmac_token

SHARED_ROUTES = sorted(SHARED)
OTHER_ROUTES = [
    (path, method)
    for path, row in ROUTES.items()
    for method, needed in row.items()
    if needed != PUBLIC and (path, method) not in SHARED
]


@pytest.fixture
def shell() -> Shell:
    return Shell(jwt_secret=SECRET)


async def start(shell: Shell, session: str = "s", **headers: str) -> str:
    answer = await shell.post({"prompt": "Hi", "session": session}, **headers)
    return str(answer.json()["id"])


async def share(shell: Shell, headers: dict[str, str] = ALICE, **body: Any) -> Any:
    answer = await shell.client.post("/v1/share", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def status(shell: Shell, method: str, path: str, headers: dict[str, str]) -> int:
    return (await shell.client.request(method, path, headers=headers)).status_code


async def test_a_share_of_a_generation_reads_it_and_no_other(shell: Shell) -> None:
    shown, other = await start(shell), await start(shell)
    made = await share(shell, generation=shown, ttl_s=60)
    token = bearing(made["token"])

    assert made["id"].startswith("share_") and isinstance(made["expires_at"], int)
    assert await status(shell, "GET", f"/v1/generations/{shown}", token) == 200
    assert await status(shell, "GET", f"/v1/generations/{other}", token) == 404
    page = (await shell.client.get("/v1/sessions/s", headers=token)).json()
    assert [row["id"] for row in page["generations"]] == [shown]
    in_query = f"/v1/generations/{shown}?access_token={made['token']}"
    assert await status(shell, "GET", in_query, {}) == 200


async def test_a_share_of_a_session_reads_its_generations_also_later_ones(shell: Shell) -> None:
    first = await start(shell)
    elsewhere, bobs = await start(shell, "t"), await start(shell, **BOB)
    token = bearing((await share(shell, session="s"))["token"])
    later = await start(shell)

    for shown in (first, later):
        assert await status(shell, "GET", f"/v1/generations/{shown}", token) == 200
    for hidden in (elsewhere, bobs):
        assert await status(shell, "GET", f"/v1/generations/{hidden}", token) == 404
    page = (await shell.client.get("/v1/sessions/s", headers=token)).json()
    assert {row["id"] for row in page["generations"]} == {first, later}
    assert (await shell.client.get("/v1/sessions/t", headers=token)).json()["generations"] == []


async def test_a_member_shares_the_prompts_of_all_in_a_shared_session(shell: Shell) -> None:
    ann, bob = (bearing(hmac_token(sub=name, sessions=["room-*"])) for name in ("ann", "bob"))
    body = {"prompt": "Hi", "session": "room-1"}
    made = (await shell.client.post("/v1/generations", json=body, headers=ann)).json()["id"]
    by_id = await share(shell, bob, generation=made)
    by_session = await share(shell, bob, session="room-1")

    for found in (by_id, by_session):
        assert await status(shell, "GET", f"/v1/generations/{made}", bearing(found["token"])) == 200


@pytest.fixture(scope="module")
async def shared_shell() -> AsyncIterator[tuple[Shell, str, dict[str, str]]]:
    """A node, a generation, and the header of its share, for calls that are all refused."""
    shell = Shell(jwt_secret=SECRET)
    shown = await start(shell)
    yield shell, shown, bearing((await share(shell, generation=shown))["token"])
    await shell.client.aclose()


@pytest.mark.parametrize(("path", "method"), OTHER_ROUTES)
async def test_a_share_may_nothing_else(
    shared_shell: tuple[Shell, str, dict[str, str]], path: str, method: str
) -> None:
    shell, shown, token = shared_shell
    for name in ("{id}", "{name}", "{session:path}", "{model:path}"):
        path = path.replace(name, shown)

    assert await status(shell, method, path, token) == 403


def test_the_routes_of_shares_only_read() -> None:
    # Every call of gRPC, gRPC-Web and Connect is a POST.
    assert {method for path, method in SHARED if not path.startswith(SERVICE)} == {"GET"}
    assert {ROUTES[path][method] for path, method in SHARED} <= {"read", PUBLIC}


async def test_a_deleted_share_reads_nothing_and_is_deleted_once(shell: Shell) -> None:
    shown = await start(shell)
    made = await share(shell, generation=shown)
    path = f"/v1/share/{made['id']}"
    assert await status(shell, "DELETE", path, BOB) == 404
    assert await status(shell, "DELETE", path, ALICE) == 200

    assert await status(shell, "GET", f"/v1/generations/{shown}", bearing(made["token"])) == 401
    assert await status(shell, "DELETE", path, ALICE) == 404


async def test_an_operator_deletes_anybodys_share(shell: Shell) -> None:
    made = await share(shell, generation=await start(shell))

    assert await status(shell, "DELETE", f"/v1/share/{made['id']}", OPERATOR) == 200


async def test_a_share_ends_with_its_time(shell: Shell) -> None:
    made = await share(shell, generation=await start(shell), ttl_s=60)
    left_s = await shell.redis.ttl(keys.share(made["id"]))

    assert 0 < left_s <= 60
    await shell.redis.delete(keys.share(made["id"]))  # as Redis does then
    answer = await shell.client.get("/v1/generations", headers=bearing(made["token"]))
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"generation": "gen_00000000", "session": "s"},
        {"generation": ""},
        {"generation": 7},
        {"session": ["s"]},
        {"session": "x" * 129},
        {"session": "a\nb"},
        {"session": "s", "ttl_s": 0},
        {"session": "s", "ttl_s": -1},
        {"session": "s", "ttl_s": True},
        {"session": "s", "ttl_s": "60"},
        {"session": "s", "ttl_s": TTL_S_MAX + 1},
        [],
    ],
    ids=str,
)
async def test_a_wrong_body_is_422(shell: Shell, body: Any) -> None:
    answer = await shell.client.post("/v1/share", json=body, headers=ALICE)

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


async def test_nobody_shares_what_is_not_visible(shell: Shell) -> None:
    hers = await start(shell)
    body = {"generation": hers}

    assert (await shell.client.post("/v1/share", json=body, headers=BOB)).status_code == 404


async def test_wrong_tokens_of_shares_are_401(shell: Shell) -> None:
    made = await share(shell, generation=await start(shell))
    token = made["token"]

    for wrong in (token[:-1], token[:-1] + ("a" if token[-1] != "a" else "b"), "trs_", "trs_x_y"):
        assert await status(shell, "GET", "/v1/generations", bearing(wrong)) == 401


async def test_redis_holds_no_secret_of_a_share(shell: Shell) -> None:
    made = await share(shell, generation=await start(shell))
    secret = made["token"].split("_", 2)[2]  # a secret may have underscores, too
    assert len(secret) == 32

    kept = await shell.redis.hgetall(keys.share(made["id"]))
    assert secret.encode() not in b"".join(kept.values())


async def test_an_owner_has_a_bound_of_shares(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares_module, "SHARES_MAX", 2)
    first, _ = await share(shell, session="s"), await share(shell, session="s")
    answer = await shell.client.post("/v1/share", json={"session": "s"}, headers=ALICE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "too_many_shares")
    await share(shell, BOB, session="s")

    await shell.client.delete(f"/v1/share/{first['id']}", headers=ALICE)

    await share(shell, session="s")
