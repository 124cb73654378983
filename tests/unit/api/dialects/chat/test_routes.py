"""What a chat completion's body is taken to ask for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.chat.request import parse_chat
from api.intake.body import new_generation
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.log.request import decode_request
from shared.queue.accept import NewGeneration

HELLO = [{"role": "user", "content": "Hi"}]
MINE = {"session": "s", "metadata": {"a": 1}, "priority": "batch", "on_disconnect": "continue"}


def accepted(**members: Any) -> NewGeneration:
    body = {"messages": HELLO, **members}
    asked = parse_chat(body, grace_s=5.0)
    return new_generation(
        body,
        asked.request,
        owner="ann",
        models=load_models(""),
        settings=Settings(),
        grace_s=asked.grace_s,
    )


def test_what_is_not_ours_goes_to_the_backend() -> None:
    new = accepted(model="demo", stream=True, temperature=0.5, top_k=3, user="u", **MINE)
    request = decode_request(new.request)
    assert request.params == {"temperature": 0.5, "top_k": 3, "user": "u"}
    assert request.messages == HELLO
    assert (new.session, json.loads(new.metadata), new.priority) == ("s", {"a": 1}, "batch")


def test_who_hangs_up_has_a_grace_unless_it_is_said_otherwise() -> None:
    assert accepted().grace_s == 5.0
    assert accepted(on_disconnect="continue").grace_s is None
    assert accepted(on_disconnect="cancel").grace_s == 0.0
    assert accepted(on_disconnect=7).grace_s == 7.0


def test_streaming_is_of_the_request_and_not_of_the_generation() -> None:
    """So a repeat under the same key may ask for the other form."""
    assert accepted(stream=True).body_digest == accepted(stream=False).body_digest
    assert parse_chat({"messages": HELLO, "stream": True}, grace_s=0).is_stream
    assert not parse_chat({"messages": HELLO}, grace_s=0).is_stream


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"include_usage": True}, {"include_usage": True}),
        ({"include_usage": False}, {}),
        ({}, {}),
        ({"include_usage": 1}, {}),
    ],
)
def test_the_usage_is_kept_for_the_fold_and_not_for_the_backend(
    options: dict[str, Any], kept: dict[str, Any]
) -> None:
    request = decode_request(accepted(stream=True, stream_options=options).request)
    assert request.dialect == kept
    assert request.params == {}
