"""The faults of the chat page of `tailrace up --cluster`: a slot moves, a master is killed."""

from __future__ import annotations

from tests.support.local_up import LocalUp
from tests.support.page_faults import LEASE_S, read_through


async def test_an_answer_survives_a_moved_slot_and_a_killed_master() -> None:
    async with LocalUp("--cluster", lease_s=LEASE_S) as up:
        _, notes = await read_through(up, ("slot", "slot", "redis"), tokens=500, per_s=20)

    assert notes.count("moved from port") == 2
    assert "master " in notes
