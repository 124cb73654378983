"""The key of a turn: the same for a repeat, another one for everything else."""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.responses.turn_key import ClientTurn, turn_key, turn_of
from shared.log.request import Request

HELLO = [{"role": "user", "content": "Hi"}]
LONG = [{"role": "user", "content": "x" * 300_000}]


@pytest.mark.parametrize(
    ("metadata", "turn"),
    [
        ({"thread_id": "t", "turn_id": "u", "x": 1}, ClientTurn("t\nu", "demo")),
        ({"thread_id": "t", "turn_id": ""}, None),
        ({"thread_id": "t"}, None),
        ({"thread_id": 7, "turn_id": "u"}, None),
        ("text", None),
        (None, None),
    ],
)
def test_a_turn_is_named_by_its_thread_and_its_id(metadata: Any, turn: ClientTurn | None) -> None:
    assert turn_of({"client_metadata": metadata, "model": "demo"}) == turn


async def test_a_repeat_has_the_same_key_whatever_it_continues() -> None:
    first = Request(HELLO, {"a": 1, "b": 2}, dialect={"previous_response_id": "resp_1"})
    again = Request([dict(HELLO[0])], {"b": 2, "a": 1})
    turn = ClientTurn("t", "demo")
    key = await turn_key(turn, first)

    assert key == await turn_key(turn, again)
    assert key.startswith("turn:") and len(key) == 69


async def test_another_request_has_another_key() -> None:
    requests = [Request(HELLO), Request([*HELLO, *HELLO]), Request(HELLO, {"a": 1}), Request(LONG)]
    keys = [await turn_key(ClientTurn("t", "demo"), request) for request in requests]
    keys += [await turn_key(ClientTurn(*turn), requests[0]) for turn in (("u", "demo"), ("t", "m"))]

    assert len(set(keys)) == len(keys)
