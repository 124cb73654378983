"""Deleting over HTTP: who may delete what, and that every dialect then answers 404."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.queue.accept import NewGeneration
from tests.support.generation import Holder
from tests.support.redis_contents import everything
from tests.support.shell import ALICE, BOB, OPERATOR, Shell
from tests.support.tokens import SECRET, hmac_token


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell(jwt_secret=SECRET)
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def start(shell: Shell, prompt: str = "Hi", session: str = "s", **headers: str) -> str:
    answer = await shell.post({"prompt": prompt, "session": session}, **headers)
    return str(answer.json()["id"])


async def delete(shell: Shell, path: str, headers: dict[str, str] = ALICE) -> tuple[int, Any]:
    answer = await shell.client.delete(path, headers=headers)
    return answer.status_code, answer.json()


async def test_a_generation_is_deleted_once(shell: Shell) -> None:
    name = await start(shell, "a marked prompt")

    assert await delete(shell, f"/v1/generations/{name}") == (200, {"id": name, "deleted": True})
    assert (await delete(shell, f"/v1/generations/{name}"))[0] == 404
    assert "a marked prompt" not in await everything(shell.redis)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/generations/{id}"),
        ("GET", "/v1/generations/{id}/events"),
        ("POST", "/v1/generations/{id}/cancel"),
        ("GET", "/v1/responses/{response}"),
        ("GET", "/v1/responses/{response}?stream=true"),
        ("GET", "/v1/responses/{response}/input_items"),
        ("POST", "/v1/responses/{response}/cancel"),
        ("DELETE", "/v1/responses/{response}"),
        ("GET", "/ai-sdk/chat/{id}/stream"),
    ],
)
async def test_a_deleted_id_is_absent_in_every_dialect(
    shell: Shell, method: str, path: str
) -> None:
    name = await start(shell)
    await (await Holder.begin(shell.store, "t", name)).finish("text")
    await delete(shell, f"/v1/generations/{name}")

    url = path.format(id=name, response=name.replace("gen_", "resp_"))
    answer = await shell.client.request(method, url, headers=ALICE)

    assert answer.status_code in (404, 204), answer.text
    assert answer.status_code == 404 or path.startswith("/ai-sdk")  # 204: no running stream


async def test_only_the_owner_and_operators_delete_a_generation(shell: Shell) -> None:
    first, second = await start(shell), await start(shell)

    assert (await delete(shell, f"/v1/generations/{first}", BOB))[0] == 404
    assert (await delete(shell, f"/v1/generations/{first}", OPERATOR))[0] == 200
    assert (await delete(shell, f"/v1/generations/{second}"))[0] == 200


async def test_a_share_and_a_token_without_the_scope_delete_nothing(shell: Shell) -> None:
    name = await start(shell)
    body = {"generation": name}
    made = (await shell.client.post("/v1/share", json=body, headers=ALICE)).json()
    reader = hmac_token(sub="alice", scope="read")

    for token in (made["token"], reader):
        bearer = {"authorization": f"Bearer {token}"}
        assert (await delete(shell, f"/v1/generations/{name}", bearer))[0] == 403
        assert (await delete(shell, "/v1/sessions/s", bearer))[0] == 403


async def test_a_session_is_deleted_for_the_caller_alone(shell: Shell) -> None:
    mine, bobs = [await start(shell) for _ in range(2)], await start(shell, **BOB)

    assert await delete(shell, "/v1/sessions/s") == (200, {"session": "s", "deleted": 2})
    for name in mine:
        assert (await shell.get(f"/v1/generations/{name}")).status_code == 404
    assert (await shell.get(f"/v1/generations/{bobs}", **BOB)).status_code == 200
    assert await delete(shell, "/v1/sessions/s") == (200, {"session": "s", "deleted": 0})


async def test_a_member_of_a_shared_session_deletes_only_the_own_generations(shell: Shell) -> None:
    bobs = await start(shell, session="room-1", **BOB)
    token = hmac_token(sub="ann", sessions=["room-*"])

    status, body = await delete(shell, "/v1/sessions/room-1", {"authorization": f"Bearer {token}"})

    assert (status, body["deleted"]) == (200, 0)
    assert (await shell.get(f"/v1/generations/{bobs}", **BOB)).status_code == 200


async def test_an_operator_deletes_the_session_of_a_named_owner(shell: Shell) -> None:
    await start(shell)

    assert (await delete(shell, "/v1/sessions/s?owner=alice", BOB))[0] == 403
    assert (await delete(shell, "/v1/sessions/s?owner=*", OPERATOR))[0] == 422
    assert (await delete(shell, "/v1/sessions/s?owner=alice", OPERATOR))[1]["deleted"] == 1


async def test_only_an_operator_forgets_an_owner(shell: Shell) -> None:
    await start(shell)

    assert (await delete(shell, "/v1/owners/alice"))[0] == 403
    after, total = "", 0
    while after is not None:
        status, body = await delete(shell, f"/v1/owners/alice?after={after}", OPERATOR)
        assert status == 200 and body["owner"] == "alice"
        total += body["deleted"].get("generations", 0)
        after = body["next"]
    assert total == 1
    assert "alice" not in await everything(shell.redis)


@pytest.mark.parametrize("query", ["after=x", "usage=maybe", "after=walk--1"])
async def test_an_unknown_step_or_choice_is_refused(shell: Shell, query: str) -> None:
    assert (await delete(shell, f"/v1/owners/alice?{query}", OPERATOR))[0] == 422


async def test_an_owner_named_with_an_asterisk_cannot_be_forgotten(shell: Shell) -> None:
    assert (await delete(shell, "/v1/owners/*", OPERATOR))[0] == 404


# Listings of operators


async def test_an_operator_lists_the_generations_of_an_owner_without_prompts_and_answers(
    shell: Shell,
) -> None:
    name = await start(shell, "a marked prompt", "a marked session")
    await (await Holder.begin(shell.store, "t", name)).finish("text")

    answer = await shell.get("/v1/generations?owner=alice", **OPERATOR)

    (row,) = answer.json()["generations"]
    assert row["id"] == name and row["owner"] == "alice" and row["status"] == "completed"
    assert "marked" not in answer.text
    assert (await shell.get("/v1/generations?owner=alice", **BOB)).status_code == 403


async def test_an_operator_lists_the_unfinished_generations_of_all_owners(shell: Shell) -> None:
    names = [await start(shell), await start(shell, **BOB)]
    over = await start(shell, **BOB)
    await shell.client.post(f"/v1/generations/{over}/cancel", headers=BOB)

    body = (await shell.get("/v1/generations?owner=*", **OPERATOR)).json()

    assert {row["id"]: row["owner"] for row in body["generations"]} == dict(
        zip(names, ("alice", "bob"), strict=True)
    )
    assert (await shell.get("/v1/generations?owner=*", **ALICE)).status_code == 403


async def test_the_unfinished_generations_of_all_owners_have_pages(
    shell: Shell, monkeypatch: Any
) -> None:
    monkeypatch.setattr("api.resources.listings.PAGE_GENERATIONS", 2)
    for number in range(3):
        name = f"gen_000000000{number}"
        new = NewGeneration("alice", "demo", b'{"messages":[]}')
        await shell.node.acceptor.accept_as(name, new, is_repeat=False)
        await shell.redis.hset(f"tr:{{{name}}}:meta", "created", 1_000 + number)

    first = (await shell.get("/v1/generations?owner=*", **OPERATOR)).json()
    second = (
        await shell.get(f"/v1/generations?owner=*&before={first['next_before']}", **OPERATOR)
    ).json()

    assert [row["id"][-1] for row in first["generations"]] == ["2", "1"]
    assert [row["id"][-1] for row in second["generations"]] == ["0"]


async def test_an_operator_sees_the_words_of_the_own_generations(shell: Shell) -> None:
    await start(shell, "mine", **OPERATOR)

    body = (await shell.get("/v1/generations?owner=*", **OPERATOR)).json()

    assert [row["prompt"] for row in body["generations"]] == ["mine"]
