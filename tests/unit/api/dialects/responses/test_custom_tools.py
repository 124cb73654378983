"""Custom tools: a function for the model server, and a custom tool again for the client."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.dialects.responses.custom_tools import PARAMETERS, as_function, input_of
from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.input import messages_of
from api.dialects.responses.request import parse_response
from shared.errors import RequestError
from shared.log.events import AnyEvent, End, Reset, Start, Token, ToolCall, encode
from shared.log.ids import EventId
from shared.log.request import encode_dialect, encode_request
from tests.support.recorded import recorded_meta

GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: begin_patch"}
PATCH_TOOL = {
    "type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR,
}  # fmt: skip
OTHER_TOOL = {"type": "function", "name": "look", "parameters": {"type": "object"}}
PATCH = '*** Begin Patch\n*** Update File: a.py\n+print("é\\n")\n*** End Patch'
DONE = End("completed", "tool_calls")


def called(arguments: str, *, cuts: int = 7, name: str = "apply_patch") -> list[AnyEvent]:
    """A call whose arguments come in pieces."""
    pieces = [arguments[at : at + cuts] for at in range(0, len(arguments), cuts)]
    first = ToolCall(0, "call_1", name, pieces[0] if pieces else "")
    return [Start(1, "m"), first, *(ToolCall(0, arguments=piece) for piece in pieces[1:])]


def answered(events: list[AnyEvent], **body: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the stream's events after its opening, and the response object."""
    tools = body.pop("tools", [PATCH_TOOL, OTHER_TOOL])
    request = parse_response({"input": "x", "tools": tools, **body}, grace_s=0).request
    fold = ResponsesFold(recorded_meta(request))
    raw = b"".join(fold.add(EventId(1, n), encode(event)) for n, event in enumerate(events, 1))
    data = [block.partition(b"data: ")[2] for block in raw.split(b"\n\n") if block]
    response: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fold.response()))
    return [json.loads(each) for each in data], response


def test_the_backend_gets_a_function_with_one_string() -> None:
    asked = parse_response({"input": "x", "tools": [PATCH_TOOL, OTHER_TOOL]}, grace_s=0)
    first, second = asked.request.params["tools"]

    assert asked.ignored == ()
    assert first["type"] == "function"
    assert first["function"]["name"] == "apply_patch"
    assert first["function"]["parameters"] == PARAMETERS
    assert first["function"]["description"].startswith("Edits files.")
    assert first["function"]["description"].endswith("lark grammar:\nstart: begin_patch")
    assert second["function"]["name"] == "look"


def test_a_choice_of_a_custom_tool_is_a_choice_of_its_function() -> None:
    choice = {"type": "custom", "name": "apply_patch"}
    asked = parse_response(
        {"input": "x", "tools": [PATCH_TOOL], "tool_choice": choice}, grace_s=0
    ).request
    _, response = answered([Start(1, "m"), DONE], tool_choice=choice)

    assert asked.params["tool_choice"] == {
        "type": "function", "function": {"name": "apply_patch"},
    }  # fmt: skip
    assert response["tool_choice"] == choice


def test_the_stream_has_the_events_of_a_custom_tool() -> None:
    events, response = answered([*called(json.dumps({"input": PATCH})), DONE])

    names = [event["type"] for event in events]
    assert names[1:5] == [
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
    ]
    added, delta, done, item = events[1:5]
    assert added["item"]["input"] == "" and added["item"]["status"] == "in_progress"
    assert delta["delta"] == done["input"] == item["item"]["input"] == PATCH
    assert delta["item_id"] == item["item"]["id"]
    assert set(item["item"]) == {"id", "type", "status", "call_id", "name", "input"}
    assert (item["item"]["type"], item["item"]["call_id"]) == ("custom_tool_call", "call_1")
    assert response["output"] == [item["item"]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_the_item_goes_back_as_a_call_of_the_function() -> None:
    _, response = answered([*called(json.dumps({"input": PATCH})), DONE])
    result = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}

    call, back = messages_of([*response["output"], result])

    function = call["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == (
        "apply_patch", {"input": PATCH},
    )  # fmt: skip
    assert back == {"role": "tool", "tool_call_id": "call_1", "content": "done"}


def test_a_function_stays_a_function() -> None:
    events, response = answered([*called('{"a":1}', name="look"), DONE])

    assert response["output"][0]["type"] == "function_call"
    assert "response.function_call_arguments.delta" in [event["type"] for event in events]


def test_a_custom_tool_with_the_name_of_a_function_is_left_out() -> None:
    tools = [{**PATCH_TOOL, "name": "look"}, OTHER_TOOL]
    asked = parse_response({"input": "x", "tools": tools}, grace_s=0)

    assert asked.ignored == ("tools[0]",)
    assert len(asked.request.params["tools"]) == 1
    assert answered([*called("{}", name="look"), DONE], tools=tools)[1]["output"][0]["type"] == (
        "function_call"
    )


@pytest.mark.parametrize("end", [Reset("restarted"), End("cancelled", "cancelled")])
def test_a_call_that_is_broken_off_has_no_input(end: AnyEvent) -> None:
    events, _ = answered([*called(json.dumps({"input": PATCH}))[:3], end])
    done = next(event for event in events if event["type"] == "response.output_item.done")

    assert (done["item"]["status"], done["item"]["input"]) == ("incomplete", "")
    assert not [event for event in events if "custom_tool_call_input" in event["type"]]


def test_the_response_repeats_the_tools() -> None:
    _, response = answered([Start(1, "m"), Token("x"), End("completed", "stop")])

    assert [(tool["type"], tool["name"]) for tool in response["tools"]] == [
        ("custom", "apply_patch"), ("function", "look"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "is_complete", "text"),
    [
        ('{"input":"a\\nb"}', True, "a\nb"),
        ('{"patch":"a"}', True, "a"),
        ('"a"', True, "a"),
        ("*** Begin", True, "*** Begin"),
        ("*** Begin", False, "*** Begin"),
        ('{"input":"a', True, '{"input":"a'),
        ('{"input":"a', False, ""),
        ('{"input":"a","more":1}', True, "a"),
        ('{"a":1,"b":2}', True, '{"a":1,"b":2}'),
        ("[1]", True, "[1]"),
        ("", True, ""),
    ],
)
def test_the_input_is_found_in_what_models_write(
    arguments: str, is_complete: bool, text: str
) -> None:
    assert input_of(arguments, is_complete=is_complete) == text


@given(st.text())
def test_any_input_comes_back_as_it_was(text: str) -> None:
    assert input_of(json.dumps({"input": text}), is_complete=True) == text


@pytest.mark.parametrize(
    "wrong", [{"name": 7}, {"name": None}, {"description": 7}, {"format": "text"}]
)
def test_a_wrong_custom_tool_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        as_function("tools[0]", {**PATCH_TOOL, **wrong})

    assert caught.value.status == 422 and "tools[0]" in caught.value.message


def test_the_names_of_custom_tools_are_stored_with_the_dialect() -> None:
    request = parse_response({"input": "x", "tools": [PATCH_TOOL]}, grace_s=0).request

    assert b"apply_patch" in encode_dialect(request)
    assert b'"custom_tools":["apply_patch"]' in encode_request(request)
