"""GET /v1/generations/{id}/timeline: who may read it, and what it shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.hub.audience import AudienceChange
from shared.queue.chats import Chats
from shared.queue.endings import CANCELLED
from shared.redis import keys
from shared.timeline.moment import Moment
from tests.support.generation import Holder
from tests.support.shell import ALICE, BOB, OPERATOR, Shell


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def start(shell: Shell) -> str:
    answer = await shell.post({"prompt": "a marked prompt"}, x_request_id="mine-1")
    return str(answer.json()["id"])


async def timeline(shell: Shell, name: str, headers: dict[str, str] = ALICE) -> tuple[int, Any]:
    answer = await shell.client.get(f"/v1/generations/{name}/timeline", headers=headers)
    return answer.status_code, answer.json()


async def test_the_story_of_an_answer_names_its_processes_and_no_text(shell: Shell) -> None:
    name = await start(shell)
    holder = await Holder.begin(shell.store, "t", name)
    shell.node.timeline.note(name, Moment("begun", worker="w-1", attempt=1, waited_s=0.25))
    await shell.node.timeline.flush()
    await holder.finish("a marked answer")

    status, body = await timeline(shell, name)

    assert status == 200
    accepted, queued, begun, end = body["data"]
    created_s = (await shell.store.meta(name)).created_at_ms / 1000  # type: ignore[union-attr]
    assert accepted == {"at": created_s, "what": "accepted", "node": "n1", "request_id": "mine-1"}
    place = {"lane": "interactive", "partition": "q"}
    assert queued == {"at": created_s, "what": "queued", **place}
    assert (begun["worker"], begun["attempt"], begun["waited_s"]) == ("w-1", 1, 0.25)
    assert (end["what"], end["status"]) == ("end", "completed")
    assert "marked" not in str(body)


async def test_owner_and_operator_read_a_timeline_and_nobody_else(shell: Shell) -> None:
    name = await start(shell)

    statuses = [(await timeline(shell, name, who))[0] for who in (ALICE, OPERATOR, BOB)]

    assert statuses == [200, 200, 404]


async def test_the_timeline_of_an_expired_answer_is_gone(shell: Shell) -> None:
    name = await start(shell)
    await (await Holder.begin(shell.store, "t", name)).finish("text")
    await shell.redis.delete(keys.log(name))

    status, body = await timeline(shell, name)

    assert (status, body["error"]["code"]) == (410, "expired")


async def test_deleting_an_answer_deletes_its_timeline(shell: Shell) -> None:
    name = await start(shell)
    shell.node.timeline.note(name, Moment("begun"))
    await shell.node.timeline.flush()
    assert await shell.redis.exists(keys.timeline(name))

    await shell.client.delete(f"/v1/generations/{name}", headers=ALICE)

    assert not await shell.redis.exists(keys.timeline(name))
    assert (await timeline(shell, name))[0] == 404


@pytest.mark.parametrize(("who", "by"), [(ALICE, "owner"), (OPERATOR, "operator")])
async def test_a_cancel_tells_who_asked_and_at_which_node(
    shell: Shell, who: dict[str, str], by: str
) -> None:
    name = await start(shell)

    await shell.client.post(f"/v1/generations/{name}/cancel", headers=who)

    *_, asked, end = (await timeline(shell, name))[1]["data"]
    assert (asked["what"], asked["by"], asked["node"]) == ("cancel_requested", by, "n1")
    assert (end["what"], end["status"]) == ("end", "cancelled")


async def test_a_chat_that_is_stopped_tells_that_its_owner_asked(shell: Shell) -> None:
    meta = await shell.store.meta(await start(shell))
    assert meta is not None
    chats = Chats(shell.redis, shell.store, shell.settings, by=shell.node.asker(""))
    await chats.add("c", meta, 0)

    await chats.stop("alice", "c")

    *_, asked, _ = (await timeline(shell, meta.generation_id))[1]["data"]
    assert (asked["by"], asked["node"]) == ("owner", "n1")


async def test_an_answer_that_all_readers_left_names_nobody(shell: Shell) -> None:
    name = await start(shell)
    await shell.store.close(name, CANCELLED)

    *_, asked, _ = (await timeline(shell, name))[1]["data"]

    assert asked["by"] == "no_readers" and "node" not in asked


async def test_readers_are_told_with_their_node(shell: Shell) -> None:
    name = await start(shell)
    shell.node.note_readers(AudienceChange(name, joined=2, left=1, readers=1, age_s=0.0))
    await shell.node.timeline.flush()

    (row,) = [row for row in (await timeline(shell, name))[1]["data"] if row["what"] == "readers"]

    assert {k: row[k] for k in ("node", "joined", "left", "readers")} == {
        "node": "n1", "joined": 2, "left": 1, "readers": 1,
    }  # fmt: skip


async def test_the_snapshot_and_the_listing_name_worker_attempts_and_wait(shell: Shell) -> None:
    name = await start(shell)
    before = (await shell.get(f"/v1/generations/{name}")).json()
    await Holder.begin(shell.store, "t", name)

    after = (await shell.get(f"/v1/generations/{name}")).json()
    (listed,) = (await shell.get("/v1/generations")).json()["generations"]

    assert (before["worker"], before["attempts"]) == (None, 0) and before["waited_s"] >= 0
    assert (after["worker"], after["attempts"]) == ("worker", 1)
    assert (listed["worker"], listed["attempts"]) == ("worker", 1)
    assert 0 <= after["waited_s"] < 60
