"""Tools in groups and in items of the input, as Codex 0.171 sends them for its newer models."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.request import parse_response
from api.dialects.responses.tool_groups import NAME_MAX
from shared.errors import RequestError
from shared.log.events import End, Start, ToolCall, encode
from shared.log.ids import EventId
from tests.support.recorded import recorded_meta

WAIT = {"type": "function", "name": "wait", "parameters": {"type": "object"}}
GROUP = {
    "type": "namespace", "name": "functions",
    "tools": [{"type": "custom", "name": "exec"}, WAIT, {"type": "web_search"}],
}  # fmt: skip
ITEM = {"type": "additional_tools", "role": "developer", "tools": [GROUP]}
ASKED = {"role": "user", "content": "Hi"}


def parsed(**members: Any) -> Any:
    return parse_response({"input": [ITEM, ASKED], **members}, grace_s=0)


def names(read: Any) -> list[str]:
    return [tool["function"]["name"] for tool in read.request.params.get("tools", [])]


def test_the_tools_of_an_input_item_come_after_the_tools_of_the_body() -> None:
    read = parsed(tools=[WAIT], tool_choice="auto")

    assert names(read) == ["wait", "functions__exec", "functions__wait"]
    assert read.request.params["tool_choice"] == "auto"
    assert read.request.messages == [ASKED]
    assert read.ignored == ("input[0].tools[0].tools[2]",)


def test_a_group_among_the_tools_gives_its_tools() -> None:
    read = parse_response({"input": "Hi", "tools": [GROUP]}, grace_s=0)

    assert names(read) == ["functions__exec", "functions__wait"]
    assert read.ignored == ("tools[0].tools[2]",)


@pytest.mark.parametrize(
    ("called", "arguments", "kind", "content"),
    [
        ("functions__wait", '{"s":1}', "function_call", {"arguments": '{"s":1}'}),
        ("functions__exec", '{"input":"ls"}', "custom_tool_call", {"input": "ls"}),
    ],
    ids=["function", "custom"],
)
def test_a_call_names_its_group_and_comes_back_under_the_same_name(
    called: str, arguments: str, kind: str, content: dict[str, str]
) -> None:
    fold = ResponsesFold(recorded_meta(parsed().request))
    events = [
        Start(1, "m"),
        ToolCall(0, "call_1", called, arguments),
        End("completed", "tool_calls"),
    ]
    raw = b"".join(fold.add(EventId(1, n), encode(event)) for n, event in enumerate(events, 1))
    added = json.loads(raw.split(b"output_item.added\ndata: ")[1].split(b"\n\n")[0])["item"]
    (item,) = msgspec.json.decode(msgspec.json.encode(fold.response()))["output"]

    for each in (added, item):
        assert (each["type"], each["namespace"]) == (kind, "functions")
        assert each["name"] == called.removeprefix("functions__")
    assert content.items() <= item.items()
    again = parse_response({"input": [ITEM, ASKED, item]}, grace_s=0).request
    assert again.messages[-1]["tool_calls"][0]["function"]["name"] == called


def test_a_call_of_a_tool_without_a_group_names_none() -> None:
    fold = ResponsesFold(recorded_meta(parsed(tools=[WAIT]).request))
    fold.add(EventId(1, 1), encode(ToolCall(0, "call_1", "wait", "{}")))
    (item,) = msgspec.json.decode(msgspec.json.encode(fold.response()))["output"]

    assert item["name"] == "wait"
    assert "namespace" not in item


def test_a_choice_of_a_tool_in_a_group_is_a_choice_of_its_function() -> None:
    choice = {"type": "function", "name": "wait", "namespace": "functions"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [choice]}

    assert parsed(tool_choice=choice).request.params["tool_choice"] == {
        "type": "function", "function": {"name": "functions__wait"},
    }  # fmt: skip
    assert names(parsed(tool_choice=allowed)) == ["functions__wait"]


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (None, "input[0].tools must be an array"),
        ([1], "input[0].tools[0] must be an object with a type"),
        ([{**GROUP, "tools": 1}], "input[0].tools[0].tools must be an array"),
        ([{**GROUP, "tools": [{"type": "function"}]}],
         "input[0].tools[0].tools[0].name must be a string"),
    ],
    ids=["no list", "no object", "no list in the group", "no name"],
)  # fmt: skip
def test_malformed_tools_of_an_item_are_refused_by_place(tools: Any, message: str) -> None:
    with pytest.raises(RequestError, match="^" + message.replace("[", r"\[")):
        parse_response({"input": [{**ITEM, "tools": tools}, ASKED]}, grace_s=0)


def test_a_joined_name_that_is_taken_or_too_long_leaves_its_tool_out() -> None:
    same = {"type": "function", "name": "functions__wait"}
    fits, long = ({"type": "function", "name": "n" * (NAME_MAX - 3 + more)} for more in (0, 1))
    group = {"type": "namespace", "name": "g", "tools": [fits, long]}
    read = parse_response({"input": "Hi", "tools": [GROUP, same, group]}, grace_s=0)

    assert names(read) == ["functions__exec", "functions__wait", f"g__{fits['name']}"]
    assert sorted(read.ignored) == ["tools[0].tools[1]", "tools[0].tools[2]", "tools[2].tools[1]"]
    fold = ResponsesFold(recorded_meta(read.request))
    fold.add(EventId(1, 1), encode(ToolCall(0, "call_1", "functions__wait", "{}")))
    (item,) = msgspec.json.decode(msgspec.json.encode(fold.response()))["output"]
    assert (item["name"], item.get("namespace")) == ("functions__wait", None)


def test_a_group_inside_a_group_is_left_out_and_named() -> None:
    read = parse_response({"input": "Hi", "tools": [{**GROUP, "tools": [GROUP]}]}, grace_s=0)

    assert names(read) == []
    assert read.ignored == ("tools[0].tools[0]",)
