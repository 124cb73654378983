"""The faults that the chat page of `tailrace up` asks for: the answer goes on, and nothing is lost.

A careful reader reads one answer through all of them. How the page shows them is tested with a
browser in tests/clients/test_break_it.py, and the faults of a cluster in masters/test_break_it.py.
"""

from __future__ import annotations

import pytest

from tests.support.local_up import LocalUp
from tests.support.page_faults import LEASE_S, attempt_of, read_through


@pytest.mark.skipif("os.environ.get('TEST_REDIS_MODE')", reason="`up` has a Redis of its own")
async def test_an_answer_survives_every_fault_of_the_page() -> None:
    """With one worker: a freeze of the only worker brings another one."""
    async with LocalUp(lease_s=LEASE_S) as up:
        faults = ("worker", "freeze", "node", "redis", "worker")
        reading, notes = await read_through(up, faults, tokens=900, per_s=60)

    assert attempt_of(reading) >= 4
    for said in (
        "was killed by SIGKILL, as asked; starts again",
        "is frozen by SIGSTOP",
        "is thawed by SIGCONT",
        "is ready again",
    ):
        assert said in notes, notes
