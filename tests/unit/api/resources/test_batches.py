"""Batches of other owners: only an operator may list and end them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.batches.record import Batches, NewBatch
from shared.log.ids import new_batch_id
from tests.support.shell import ALICE, BOB, OPERATOR, Shell


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def submit(shell: Shell, owner: str) -> str:
    new = NewBatch(new_batch_id(), owner, "/v1/generations", "file-1", "24h", 86_400.0)
    await Batches(shell.redis, shell.settings).create(new)
    return new.batch_id


def code(response: Any) -> str:
    return str(response.json()["error"]["code"])


async def listed(shell: Shell, query: str) -> list[tuple[str, str]]:
    answer = await shell.get(f"/v1/batches?{query}", **OPERATOR)
    return [(batch["id"], batch["owner"]) for batch in answer.json()["data"]]


async def test_an_operator_lists_one_owners_batches_and_all_unfinished_batches(
    shell: Shell,
) -> None:
    mine, others = await submit(shell, "alice"), await submit(shell, "bob")
    # An ended batch that is still in the index of unfinished ones.
    await shell.redis.hset(f"tr:{{{others}}}:batch", "status", "completed")

    assert await listed(shell, "owner=alice") == [(mine, "alice")]
    assert await listed(shell, "owner=bob") == [(others, "bob")]
    assert await listed(shell, "owner=*") == [(mine, "alice")]
    assert (await shell.get("/v1/batches", **OPERATOR)).json()["data"] == []


async def test_the_pages_of_all_owners_are_complete(shell: Shell) -> None:
    ids = {await submit(shell, f"owner {number}") for number in range(5)}
    seen: list[str] = []
    query = "owner=*&limit=2"
    while page := await listed(shell, query):
        assert len(page) <= 2
        seen += [batch_id for batch_id, _ in page]
        query = f"owner=*&limit=2&after={seen[-1]}"

    assert len(seen) == 5
    assert set(seen) == ids


async def test_an_ordinary_key_lists_only_its_own_batches(shell: Shell) -> None:
    mine = await submit(shell, "alice")

    for owner in ("bob", "*"):
        answer = await shell.get(f"/v1/batches?owner={owner}")
        assert (answer.status_code, code(answer)) == (403, "forbidden")
    (own,) = (await shell.get("/v1/batches?owner=alice")).json()["data"]
    assert (own["id"], own["owner"]) == (mine, "alice")
    (own,) = (await shell.get("/v1/batches")).json()["data"]
    assert "owner" not in own


async def test_an_operator_ends_every_batch_and_an_ordinary_key_its_own(shell: Shell) -> None:
    batch_id = await submit(shell, "alice")
    path = f"/v1/batches/{batch_id}/cancel"

    assert (await shell.client.post(path, headers=BOB)).status_code == 404
    ended = await shell.client.post(path, headers=OPERATOR)
    assert (ended.status_code, ended.json()["status"]) == (200, "cancelling")
    assert (await shell.client.post(path, headers=ALICE)).status_code == 200
    unknown = await shell.client.post("/v1/batches/batch_12345678/cancel", headers=OPERATOR)
    assert unknown.status_code == 404
