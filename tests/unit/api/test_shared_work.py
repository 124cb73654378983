"""Work that is not the caller's own: sessions that a token names, and users for whom a key asks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.shell import OPERATOR, Shell
from tests.support.tokens import SECRET, hmac_token

BACKEND = "key-of-the-backend"


@pytest.fixture
def shell() -> Shell:
    keys = (
        f"alpha:alice,omega:olga:admin,{BACKEND}:backend:act,act-admin:root:act admin,r:x:act read"
    )
    return Shell(jwt_secret=SECRET, api_keys=keys)


def member(name: str, *sessions: str, **claims: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {hmac_token(sub=name, sessions=list(sessions), **claims)}"}


async def start(shell: Shell, headers: dict[str, str], session: str, prompt: str = "Hi") -> str:
    body = {"prompt": prompt, "session": session}
    answer = await shell.client.post("/v1/generations", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def status(shell: Shell, method: str, path: str, headers: dict[str, str]) -> int:
    return (await shell.client.request(method, path, headers=headers)).status_code


async def test_several_people_are_in_one_session_each_prompt_with_its_author(shell: Shell) -> None:
    ann, bob = member("ann", "room-*"), member("bob", "room-7")
    hers = await start(shell, ann, "room-7", "from ann")
    his = await start(shell, bob, "room-7", "from bob")

    for person in (ann, bob):
        page = (await shell.client.get("/v1/sessions/room-7", headers=person)).json()
        rows = {row["id"]: (row["author"], row["prompt"]) for row in page["generations"]}
        assert rows == {hers: ("ann", "from ann"), his: ("bob", "from bob")}
        assert set(page["active"]) == {hers, his}


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("POST", "/cancel"), ("GET", "/events?wait=0")]
)
async def test_a_member_reads_and_writes_what_others_started(
    shell: Shell, method: str, rest: str
) -> None:
    hers = await start(shell, member("ann"), "room-7")
    path = f"/v1/generations/{hers}{rest}"

    if "events" not in rest:
        assert await status(shell, method, path, member("bob", "room-*")) in (200, 202)
    for stranger in (member("bob"), member("bob", "room-8"), member("bob", "room")):
        assert await status(shell, method, path, stranger) == 404


async def test_an_operator_ends_anybodys_generation_and_reads_none(shell: Shell) -> None:
    hers = await start(shell, member("ann"), "s")
    path = f"/v1/generations/{hers}"

    assert await status(shell, "GET", path, OPERATOR) == 404
    assert await status(shell, "POST", f"{path}/cancel", OPERATOR) == 202
    ended = (await shell.client.get(path, headers=member("ann"))).json()
    assert ended["status"] == "cancelled"
    absent = "/v1/generations/gen_00000000000000000000000000/cancel"
    assert await status(shell, "POST", absent, OPERATOR) == 404


async def test_the_snapshot_of_a_shared_generation_names_its_author(shell: Shell) -> None:
    hers = await start(shell, member("ann"), "room-7")
    path = f"/v1/generations/{hers}"

    shown = (await shell.client.get(path, headers=member("bob", "room-*"))).json()
    own = (await shell.client.get(path, headers=member("ann"))).json()

    assert shown["author"] == "ann"
    assert "author" not in own


async def test_without_the_claim_a_session_of_the_same_name_is_the_owners_own(shell: Shell) -> None:
    await start(shell, member("ann"), "room-7")
    his = await start(shell, member("bob"), "room-7")

    page = (await shell.client.get("/v1/sessions/room-7", headers=member("bob"))).json()

    assert [row["id"] for row in page["generations"]] == [his]
    assert "author" not in page["generations"][0]


async def test_a_generation_without_a_session_is_in_no_shared_one(shell: Shell) -> None:
    answer = await shell.client.post(
        "/v1/generations", json={"prompt": "Hi"}, headers=member("ann")
    )
    path = f"/v1/generations/{answer.json()['id']}"

    assert await status(shell, "GET", path, member("bob", "room-*", "r*")) == 404


async def test_a_member_without_the_scope_reads_only(shell: Shell) -> None:
    hers = await start(shell, member("ann"), "room-7")
    reader = member("bob", "room-*", scope="read")

    assert await status(shell, "GET", f"/v1/generations/{hers}", reader) == 200
    assert await status(shell, "POST", f"/v1/generations/{hers}/cancel", reader) == 403


async def test_without_tokens_nothing_is_indexed_for_all(shell: Shell) -> None:
    plain = Shell()
    await plain.post({"prompt": "Hi", "session": "room-7"})

    assert len(await plain.redis.keys("tr:session:*")) == 1


def acting(user: str, key: str = BACKEND) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "x-on-behalf-of": user}


async def test_a_trusted_key_starts_and_reads_for_a_user(shell: Shell) -> None:
    made = await start(shell, acting("alice"), "s")
    path = f"/v1/generations/{made}"

    assert (await shell.get(path)).status_code == 200, "alice reads with a key of her own"
    assert await status(shell, "GET", path, member("alice")) == 200
    assert await status(shell, "GET", path, acting("alice")) == 200
    for other in (acting("bob"), {"authorization": f"Bearer {BACKEND}"}):
        assert await status(shell, "GET", path, other) == 404


@pytest.mark.parametrize("path", ["/metrics", "/v1/workers", "/v1/schedules?owner=*"])
async def test_a_user_is_no_operator_also_if_the_key_is_one(shell: Shell, path: str) -> None:
    assert await status(shell, "GET", path, {"authorization": "Bearer act-admin"}) == 200

    assert await status(shell, "GET", path, acting("alice", "act-admin")) == 403


async def test_a_user_has_no_more_scopes_than_the_key(shell: Shell) -> None:
    assert await status(shell, "GET", "/v1/generations", acting("alice", "r")) == 200
    assert await status(shell, "POST", "/v1/generations", acting("alice", "r")) == 403


@pytest.mark.parametrize(
    "credential", ["alpha", "omega", hmac_token(scope="admin act"), hmac_token()], ids=range(4)
)
async def test_only_a_key_with_the_scope_may_name_a_user(shell: Shell, credential: str) -> None:
    headers = acting("bob", credential)
    answer = await shell.client.get("/v1/models", headers=headers)

    assert answer.status_code == 403 and "act" in answer.json()["error"]["message"]


async def test_a_node_without_credentials_refuses_to_act_for_users() -> None:
    open_shell = Shell(api_keys="")

    assert await status(open_shell, "GET", "/v1/models", {"x-on-behalf-of": "bob"}) == 403


@pytest.mark.parametrize("user", ["", "*", "anonymous", "tr:x", "x" * 257, "a\xff"], ids=ascii)
async def test_a_user_has_a_name_that_an_owner_may_have(shell: Shell, user: str) -> None:
    headers = [
        (b"authorization", f"Bearer {BACKEND}".encode()),
        (b"x-on-behalf-of", user.encode("latin-1")),
    ]

    assert (await shell.client.get("/v1/models", headers=headers)).status_code == 422


async def test_two_users_are_refused_and_a_name_is_utf_8(shell: Shell) -> None:
    key = (b"authorization", f"Bearer {BACKEND}".encode())
    two = [key, (b"x-on-behalf-of", b"ann"), (b"x-on-behalf-of", b"bob")]
    jose = [key, (b"x-on-behalf-of", "José".encode())]

    assert (await shell.client.get("/v1/models", headers=two)).status_code == 422
    made = await shell.client.post("/v1/generations", json={"prompt": "Hi"}, headers=jose)
    path = f"/v1/generations/{made.json()['id']}"
    assert await status(shell, "GET", path, member("José")) == 200
