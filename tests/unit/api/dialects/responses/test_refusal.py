"""Refusals of a model, and the summary of its reasoning, as OpenAI's SDK reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response

from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.refusal import refusal_of
from shared.log.events import End, Reasoning, Start, Token, encode
from shared.log.ids import EventId
from shared.log.request import Request
from tests.support.recorded import recorded_meta

SUMMARIZED = recorded_meta(
    Request(messages=[{"role": "user", "content": "Hi"}], dialect={"reasoning_summary": "auto"})
)


def extra(text: str) -> bytes:
    return msgspec.json.encode({"type": "extra", "extra": {"delta": {"refusal": text}}})


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (extra("No"), "No"),
        (b'{"type":"extra","delta":{"refusal":"No"}}', "No"),
        (b'{"type":"token","text":"a","extra":{"delta":{"refusal":"No"}}}', "No"),
        (b'{"type":"extra","extra":{"delta":{"refusal":null}}}', ""),
        (b'{"type":"extra","extra":{"delta":{"refusal":7}}}', ""),
        (b'{"type":"extra","extra":{"choice":{"refusal":"No"}}}', ""),
        (b'{"type":"token","text":"\\"refusal\\""}', ""),
        (b'{"type":"token","text":"refusal"}', ""),
    ],
)
def test_a_refusal_is_found_where_servers_write_it(raw: bytes, text: str) -> None:
    assert refusal_of(raw) == text


def told(meta: Any, *raws: bytes) -> tuple[list[dict[str, Any]], Response]:
    """Return the events, and the response that OpenAI's helper puts together from them."""
    fold = ResponsesFold(meta)
    sent = fold.opening()
    for seq, raw in enumerate([encode(Start(1, "demo")), *raws], 1):
        sent += fold.add(EventId(1, seq), raw)
    blocks = sent.split(b"\n\n")[:-1]
    events = [json.loads(block.split(b"data: ", 1)[1]) for block in blocks]
    return events, Response.model_validate(events[-1]["response"])


def refusing(text: str) -> bytes:
    """A token that is a piece of a refusal, as workers write it."""
    return msgspec.json.encode(
        {"type": "token", "text": text, "extra": {"delta": {"refusal": text}}}
    )


@pytest.mark.parametrize("piece", [extra, refusing])
def test_a_refusal_is_a_part_of_its_own(piece: Callable[[str], bytes]) -> None:
    events, response = told(
        recorded_meta(), piece("I can"), piece("not."), encode(End("completed", "stop"))
    )

    (message,) = response.output
    assert message.type == "message"
    (part,) = message.content
    assert (part.type, part.refusal) == ("refusal", "I cannot.")  # type: ignore[union-attr]
    assert [event["type"] for event in events[3:-1]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert events[7]["refusal"] == "I cannot."


def test_a_refusal_after_a_text_is_an_item_of_its_own() -> None:
    _, response = told(
        recorded_meta(), encode(Token("Well")), extra("no"), encode(End("completed", "stop"))
    )
    _, joined = told(
        recorded_meta(),
        b'{"type":"token","text":"Wellno","extra":{"delta":{"refusal":"no"}}}',
        encode(End("completed", "stop")),
    )
    assert joined.output == response.output
    output: list[Any] = list(response.output)
    kinds = [part.type for item in output for part in item.content]
    assert kinds == ["output_text", "refusal"]


def test_a_summary_that_was_asked_for_is_sent_as_a_summary() -> None:
    events, response = told(
        SUMMARIZED,
        encode(Reasoning("Let me")),
        encode(Reasoning(" see.")),
        encode(Token("Yes")),
        encode(End("completed", "stop")),
    )

    reasoning: Any = response.output[0]
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.summary] == ["Let me see."]
    assert reasoning.content == []
    assert [event["type"] for event in events[3:10]] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    ]
    assert all(event["summary_index"] == 0 for event in events[4:9])


def test_the_helper_of_the_sdk_accepts_both() -> None:
    """`responses.stream` and `parse` put a response together in this class."""
    from openai._models import construct_type
    from openai.types.responses import ResponseStreamEvent

    events, _ = told(
        SUMMARIZED, encode(Reasoning("Hm")), extra("No."), encode(End("completed", "stop"))
    )
    state: Any = ResponseStreamState(input_tools=[], text_format=cast(Any, None))
    for event in events:
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))
    kinds = [item.type for item in state._completed_response.output]
    assert kinds == ["reasoning", "message"]
