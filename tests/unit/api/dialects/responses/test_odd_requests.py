"""Requests as real clients send them: tools that no backend runs, items of every type.

The tools are those that Codex 0.171 sends, with shorter schemas.
"""

from __future__ import annotations

from typing import Any

import pytest

from api.dialects.responses.fold import ResponsesFold
from api.dialects.responses.ignored import PLACES_MAX, ignored_header
from api.dialects.responses.input import items_of, messages_of, references_of
from api.dialects.responses.references import find_items
from api.dialects.responses.request import parse_response
from api.dialects.responses.response_object import response_head
from api.intake.part_urls import check_urls
from shared.config.settings import Settings
from shared.errors import Expired, NotFound, RequestError
from tests.support.recorded import recorded_meta


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}}


def chat_function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


CODEX_TOOLS = [
    function("exec_command"),
    function("write_stdin"),
    {"type": "namespace", "name": "multi_agent_v1", "tools": [function("spawn_agent")]},
    {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark"}},
    {"type": "web_search", "external_web_access": False},
]


def parsed(**members: Any) -> Any:
    return parse_response({"input": "Hi", **members}, grace_s=5.0)


def test_tools_that_no_backend_runs_are_left_out_and_named() -> None:
    read = parsed(tools=CODEX_TOOLS, tool_choice="auto", client_metadata={"thread_id": "t"})

    *functions, custom = read.request.params.pop("tools")
    found = ["exec_command", "write_stdin", "multi_agent_v1__spawn_agent"]
    assert functions == [chat_function(name) for name in found]
    assert custom["function"]["name"] == "apply_patch"
    assert read.request.params == {"tool_choice": "auto"}
    assert read.ignored == ("tools[4]",)
    assert ignored_header(read.ignored) == {"x-tailrace-ignored": "tools[4]"}


def test_a_search_toggle_alone_leaves_a_request_without_tools() -> None:
    """The search toggle of LobeChat sends this tool and nothing else."""
    read = parsed(tools=[{"type": "web_search"}], tool_choice="auto")

    assert (read.request.params, read.ignored) == ({}, ("tools[0]",))


def test_the_header_of_many_places_stays_short() -> None:
    assert ignored_header(()) == {}
    places = [f"tools[{index}]" for index in range(PLACES_MAX + 3)]
    header = ignored_header(places)["x-tailrace-ignored"]
    assert header.endswith(f"tools[{PLACES_MAX - 1}], and 3 more")


ALLOW_B = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]}


@pytest.mark.parametrize(
    ("choice", "names", "sent", "ignored"),
    [
        ("required", "ab", "required", ()),
        ({"type": "function", "name": "b"}, "ab",
         {"type": "function", "function": {"name": "b"}}, ()),
        (ALLOW_B, "b", "auto", ()),
        (ALLOW_B | {"mode": "required"}, "b", "required", ()),
        (ALLOW_B | {"tools": [{"type": "web_search"}]}, "", None, ()),
        (ALLOW_B | {"tools": [{"type": "web_search"}], "mode": "required"}, "", None,
         ("tool_choice",)),
        ({"type": "web_search"}, "ab", None, ("tool_choice",)),
        ({"type": "custom", "name": "apply_patch"}, "ab", None, ("tool_choice",)),
    ],
)  # fmt: skip
def test_each_tool_choice(choice: Any, names: str, sent: Any, ignored: tuple[str, ...]) -> None:
    read = parsed(tools=[function("a"), function("b")], tool_choice=choice)
    params = read.request.params

    assert params.get("tools", []) == [chat_function(name) for name in names]
    assert params.get("tool_choice") == sent
    assert read.ignored == ignored


def test_the_response_repeats_allowed_tools_and_the_summary_that_were_asked_for() -> None:
    read = parsed(tools=[function("b")], tool_choice=ALLOW_B, reasoning={"summary": "auto"})
    head = response_head(recorded_meta(read.request))

    assert (head["tool_choice"], head["reasoning"]["summary"]) == (ALLOW_B, "auto")


def chat_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments},
    }  # fmt: skip


def calls(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": None, "tool_calls": list(calls)}]


def result(call_id: str, content: str) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": call_id, "content": content}]


@pytest.mark.parametrize(
    ("item", "messages"),
    [
        ({"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
         calls(chat_call("c", "apply_patch", '{"input":"*** Begin"}'))),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": "ok"}, result("c", "ok")),
        ({"type": "custom_tool_call_output", "call_id": "c",
          "output": [{"type": "input_text", "text": "Do"}, {"type": "input_text", "text": "ne"}]},
         result("c", "Done")),
        ({"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "status": "completed",
          "action": {"type": "exec", "command": ["ls"]}},
         calls(chat_call("c", "local_shell", '{"type":"exec","command":["ls"]}'))),
        ({"type": "local_shell_call_output", "id": "c", "output": "a b"}, result("c", "a b")),
        ({"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
         calls(chat_call("c", "shell", '{"commands":["ls"]}'))),
        ({"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "a"}]},
         result("c", '[{"stdout":"a"}]')),
        ({"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file"}},
         calls(chat_call("c", "apply_patch", '{"type":"delete_file"}'))),
        ({"type": "apply_patch_call_output", "call_id": "c", "status": "completed"},
         result("c", "completed")),
        ({"type": "message", "role": "assistant", "content": []}, []),
        ({"role": "assistant", "content": None}, []),
        ({"type": None, "role": "user", "content": "x"}, [{"role": "user", "content": "x"}]),
        ({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}, []),
    ],
)  # fmt: skip
def test_each_item_that_a_backend_can_be_given(item: dict[str, Any], messages: list[Any]) -> None:
    ignored: list[str] = []

    assert messages_of([item], ignored) == messages
    assert ignored == []


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call",
        "computer_call", "mcp_list_tools", "compaction", "compaction_summary", "ghost_snapshot",
    ],
)  # fmt: skip
def test_an_item_that_only_openai_can_read_is_left_out_and_named(kind: str) -> None:
    ask = {"role": "user", "content": "x"}
    read = parsed(input=[ask, {"type": kind, "id": "x_1", "encrypted_content": "y"}])

    assert (read.request.messages, read.ignored) == ([ask], ("input[1]",))


def test_texts_pictures_audio_and_files_keep_their_order() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    url = "https://example.org/a.pdf"
    content = [
        {"type": "input_text", "text": "one"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_text", "text": "two"},
        sound,
        {"type": "input_file", "file_url": url},
    ]
    messages = messages_of([{"role": "user", "content": content}])

    assert messages[0]["content"] == [
        {"type": "text", "text": "one"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "text", "text": "two"},
        sound,
        {"type": "file", "file": {"file_data": url}},
    ]
    assert messages_of(items_of(messages, "x")) == messages
    assert items_of(messages, "x")[0]["content"][-1] == {"type": "input_file", "file_url": url}


@pytest.mark.parametrize(
    ("kind", "instead"), [("input_image", "image_url"), ("input_file", "file_data")]
)
def test_a_part_that_names_an_upload_is_refused_with_the_member_to_use(
    kind: str, instead: str
) -> None:
    content = [{"type": kind, "file_id": "file-1", "image_url": None}]
    with pytest.raises(RequestError) as caught:
        messages_of([{"role": "user", "content": content}])

    assert str(caught.value) == (
        "input[0].content[0].file_id: the model cannot get an uploaded file; "
        f"send the content as a data URL in {instead}"
    )


def test_the_url_of_a_file_is_checked_against_the_allowed_hosts() -> None:
    part = {"type": "input_file", "file_url": "http://169.254.169.254/latest"}
    read = parsed(input=[{"role": "user", "content": [part]}])
    with pytest.raises(RequestError, match="file_data"):
        check_urls(read.request, Settings(part_urls="none"))


# References


def item(item_id: str, text: str) -> dict[str, Any]:
    return {"type": "message", "id": item_id, "role": "assistant", "content": text}


STORED = {
    "resp_a": [item("msg_a_in0", "asked"), item("msg_a_1", "answered")],
    "resp_b": [item("msg_b_0", "more")],
}


class Stored:
    """What a node holds; counts the reads."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    async def __call__(self, response: str) -> list[dict[str, Any]]:
        self.reads.append(response)
        if response == "resp_gone":
            raise Expired
        if response not in STORED:
            raise NotFound("response")
        return STORED[response]


async def test_each_response_of_many_references_is_read_once() -> None:
    stored = Stored()
    ids = ("msg_a_1", "msg_b_0", "msg_a_in0")

    assert list(await find_items(ids, stored)) == list(ids)
    assert stored.reads == ["resp_a", "resp_b"]


@pytest.mark.parametrize("item_id", ["msg_a_7", "msg_c_0", "rs_gone_0", "msg_68ad", "x", "", "__"])
async def test_an_unknown_reference_is_named(item_id: str) -> None:
    with pytest.raises(RequestError) as caught:
        await find_items(("msg_a_1", item_id), Stored())
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert repr(item_id) in caught.value.message


def test_items_that_are_only_named_take_their_place_in_the_conversation() -> None:
    ask = {"role": "user", "content": "and now?"}
    named = [{"type": "item_reference", "id": "msg_a_1"}, {"id": "rs_b_0"}, {"id": "fc_b_1"}]
    output = {"type": "function_call_output", "call_id": "c", "output": "rain"}
    read = parsed(input=[*named, output, ask], instructions="Be brief.")
    assert read.references == references_of(named) == ("msg_a_1", "rs_b_0", "fc_b_1")

    whole = read.with_items(
        {
            "msg_a_1": item("msg_a_1", "Let me see."),
            "rs_b_0": {"type": "reasoning", "id": "rs_b_0", "summary": []},
            "fc_b_1": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        }
    )

    assert (whole.references, whole.ignored) == ((), ())
    assert whole.request.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [chat_call("c", "f", "{}")]},
        *result("c", "rain"),
        ask,
    ]


def test_a_numeric_priority_goes_to_the_backend() -> None:
    body = {"input": "Hi", "priority": 3}
    assert parse_response(body, grace_s=5.0).request.params == {"priority": 3}
    assert "priority" not in body


def test_a_response_with_a_summary_has_it_in_the_item() -> None:
    read = parsed(reasoning={"summary": "concise", "effort": "low"})
    assert read.request.dialect == {"reasoning_summary": "concise"}
    assert ResponsesFold(recorded_meta(read.request)).response()["reasoning"] == {
        "effort": "low", "summary": "concise",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [{}, [], None, 1, True, {"a": 1}], ids=repr)
def test_a_part_whose_type_is_no_string_is_refused(kind: object) -> None:
    body = {"model": "m", "input": [{"role": "user", "content": [{"type": kind, "text": "x"}]}]}
    with pytest.raises(RequestError, match=r"input\[0\].content\[0\]"):
        parse_response(body, grace_s=10.0)
