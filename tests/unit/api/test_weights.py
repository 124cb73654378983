"""The weight of an owner in limits.toml reaches the turns of the queue."""

from __future__ import annotations

import pytest

from shared.redis import keys
from tests.support.shell import ALICE, BOB, Shell

FILE = '[groups.paying]\nowners = ["alice"]\nweight = 3\n'


@pytest.mark.parametrize("priority", keys.PRIORITIES)
async def test_the_weight_of_the_file_is_that_of_the_owners_turns(tmp_path, priority):
    path = tmp_path / "limits.toml"
    path.write_text(FILE)
    shell = Shell(limits=str(path))
    for credentials in (ALICE, BOB):
        answer = await shell.post({"prompt": "Hi", "priority": priority}, **credentials)
        assert answer.status_code == 202, answer.text

    turns = await shell.redis.hgetall(keys.turns(priority))

    weights = {owner.decode(): turn.split()[1] for owner, turn in turns.items()}
    assert weights == {keys.digest_of("alice"): b"3", keys.digest_of("bob"): b"1"}
    await shell.client.aclose()
