"""The input items of Responses as chat messages, which every backend takes, and back.

Pure. An item of an unknown type is refused by name and not left out: an answer that ignores half of
the question is worse than an error. Items that only OpenAI can read are left out, and the answer
names their places. Of the reasoning of earlier turns only what the model wants back is kept
(kept_reasoning.py), because chat completions have no place for the rest.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from api.dialects.responses.kept_reasoning import details_in, is_only_kept, keep_in
from api.dialects.responses.parts import parts_back, read_parts
from api.dialects.responses.tool_groups import ADDITIONAL_TOOLS, chat_name
from api.intake.body import check_messages, invalid_request

REFERENCE = "item_reference"
_ROLES = ("user", "assistant", "system", "developer")
# Records of what OpenAI's own tools did, and contents that only OpenAI can decrypt.
_UNREADABLE = frozenset(
    (
        "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call",
        "computer_call", "computer_call_output", "mcp_list_tools", "mcp_call",
        "mcp_approval_request", "mcp_approval_response", "tool_search_call", "tool_search_output",
        "compaction", "compaction_summary", "compaction_trigger",
        "context_compaction", "ghost_snapshot",
    )
)  # fmt: skip
# Calls of tools that the client runs. In chat completions each is the call of a function.
EXTRA_CONTENT = "extra_content"  # where Gemini's server puts the signature of a call
_OWN_MEMBERS = ("id", "type", "function", "index")  # of a call in chat completions
_OWN_OF_FUNCTION = ("name", "arguments")
_CALLS: dict[str, str] = {  # by type: the member that holds the arguments
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}
_OUTPUTS = frozenset(f"{kind}_output" for kind in _CALLS)


def references_of(items: Any) -> tuple[str, ...]:
    """Return the ids of the items that `input` only names, each once, in their order."""
    found = [item["id"] for item in items if _is_reference(item)] if isinstance(items, list) else []
    return tuple(dict.fromkeys(found))


def resolve(items: list[Any], found: Mapping[str, dict[str, Any]]) -> list[Any]:
    """Return `items` with each item that is only named replaced by the item in `found`."""
    return [found[item["id"]] if _is_reference(item) else item for item in items]


def _is_reference(item: Any) -> bool:
    """Whether an item only names another one. `type` may be left out there."""
    if not isinstance(item, dict) or not isinstance(item.get("id"), str):
        return False
    return item.get("type") == REFERENCE or (
        item.get("type") is None and "role" not in item and "content" not in item
    )


def messages_of(items: Any, ignored: list[str] | None = None) -> list[dict[str, Any]]:
    """Return `input` as chat messages; a string is a message of the user.

    Args:
        ignored: gets the place of each item that was left out, for example `input[2]`, except
            reasoning.

    Raises:
        RequestError: 422, an item is wrong or not supported.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise invalid_request("input must be a string or an array of items")
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        where = f"input[{index}]"
        if not isinstance(item, dict):
            raise invalid_request(f"{where} must be an object")
        if not _add_item(messages, where, item) and ignored is not None:
            ignored.append(where)
    return check_messages(messages) if messages else []


def _add_item(messages: list[dict[str, Any]], where: str, item: dict[str, Any]) -> bool:
    """Add an item to the messages; return False if no backend can be given the item."""
    kind = item.get("type")
    kind = "message" if kind is None or kind == "" else kind
    if not isinstance(kind, str):
        raise invalid_request(f"{where}.type must be a string")
    if kind == "message":
        message = _read_message(where, item)
        if message is None:
            return True
        if message["role"] == "assistant" and messages and is_only_kept(messages[-1]):
            messages[-1]["content"] = message["content"]
        else:
            messages.append(message)
    elif kind == "reasoning":
        keep_in(messages, details_in(item))
    elif kind in _CALLS:
        call = _tool_call(where, kind, item)
        if messages and messages[-1]["role"] == "assistant":
            # In chat completions the text and the calls of one turn are one message.
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind in _OUTPUTS:
        messages.append(_tool_output(where, item))
    elif kind in _UNREADABLE:
        return False
    elif kind == REFERENCE:
        raise invalid_request(f"{where}: an item_reference must name an item by its id")
    elif kind != ADDITIONAL_TOOLS:  # its tools are read with the other tools
        raise invalid_request(f"{where}.type: {kind[:80]!r} is not supported here")
    return True


def _read_message(where: str, item: dict[str, Any]) -> dict[str, Any] | None:
    """Return a message; None: an assistant's message without content, which says nothing."""
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        raise invalid_request(f"{where}.role must be one of {', '.join(_ROLES)}")
    if role == "assistant" and (content is None or content == []):
        return None
    if isinstance(content, list):
        content = read_parts(f"{where}.content", content)
        if role == "assistant" and all(part["type"] == "text" for part in content):
            content = "".join(
                part["text"] for part in content
            )  # the chat templates of some models take no parts
        elif len(content) == 1 and content[0]["type"] == "text":
            content = content[0]["text"]
    elif not isinstance(content, str):
        raise invalid_request(f"{where}.content must be a string or an array of parts")
    return {"role": role, "content": content}


def _tool_call(where: str, kind: str, item: dict[str, Any]) -> dict[str, Any]:
    member = _CALLS[kind]
    if kind == "function_call":
        name, arguments = _read_name(where, item), _read_text(where, item, member)
    elif kind == "custom_tool_call":
        name = _read_name(where, item)
        arguments = _as_json({member: _read_text(where, item, member)})
    else:
        name, arguments = kind.removesuffix("_call"), _as_json(item.get(member) or {})
    function = {"name": name, "arguments": arguments}
    call = {"id": _read_call_id(where, item), "type": "function", "function": function}
    return _with_extra(call, item)


def _with_extra(call: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Add the members of a call that only the model server knows, as the output item had them.

    Gemini, for example, refuses a conversation whose calls have lost their `thought_signature`.
    """
    extra = item.get("extra")
    extra = dict(extra) if isinstance(extra, dict) else {}
    if isinstance(item.get(EXTRA_CONTENT), dict):
        extra.setdefault(EXTRA_CONTENT, item[EXTRA_CONTENT])
    function = extra.pop("function", None)
    if isinstance(function, dict):
        call["function"] = function | call["function"]
    return extra | call


def _tool_output(where: str, item: dict[str, Any]) -> dict[str, Any]:
    output = item.get("output")
    if isinstance(output, list) and item["type"] != "shell_call_output":
        parts = read_parts(f"{where}.output", output)
        is_text = all(part["type"] == "text" for part in parts)
        output = "".join(part["text"] for part in parts) if is_text else parts
    elif item["type"] == "function_call_output" and not isinstance(output, str):
        raise invalid_request(f"{where}.output must be a string or an array of parts")
    elif not isinstance(output, str):
        output = _as_json(output) if output is not None else str(item.get("status") or "")
    return {"role": "tool", "tool_call_id": _read_call_id(where, item), "content": output}


def _read_call_id(where: str, item: dict[str, Any]) -> str:
    if item.get("call_id") is None and item["type"] == "local_shell_call_output":
        return _read_text(where, item, "id")  # there `id` is the id of the call
    return _read_text(where, item, "call_id")


def _read_text(where: str, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise invalid_request(f"{where}.{name} must be a string")
    return value


def _read_name(where: str, item: dict[str, Any]) -> str:
    _read_text(where, item, "name")
    return str(chat_name(item))


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# From messages back to items, for a client that lists the input of a response.


def items_of(messages: list[dict[str, Any]], id_part: str) -> list[dict[str, Any]]:
    """Return chat messages as items, whose ids depend only on `id_part` and on their order."""
    items: list[dict[str, Any]] = []

    def add(kind: str, prefix: str, **members: Any) -> None:
        item_id = f"{prefix}_{id_part}_in{len(items)}"
        items.append({"id": item_id, "type": kind, "status": "completed", **members})

    for message in messages:
        content, role = message.get("content"), message.get("role", "user")
        if role == "tool":
            call_id, output = message.get("tool_call_id", ""), parts_back(content, "input_text")
            if isinstance(content, str):
                add("function_call_output", "fco", call_id=call_id, output=content)
            else:
                add("function_call_output", "fco", call_id=call_id, output=output)
            continue
        if content is not None:
            kind = "output_text" if role == "assistant" else "input_text"
            add("message", "msg", role=role, content=parts_back(content, kind))
        for call in message.get("tool_calls") or []:
            function = call.get("function") or {}
            members = {name: function.get(name, "") for name in ("name", "arguments")}
            if extra := _extra_of(call):
                members["extra"] = extra
            add("function_call", "fc", call_id=call.get("id", ""), **members)
    return items


def _extra_of(call: dict[str, Any]) -> dict[str, Any]:
    """Return the members that `_with_extra` has added to a call."""
    extra = {name: value for name, value in call.items() if name not in _OWN_MEMBERS}
    function = call.get("function") or {}
    inner = {name: value for name, value in function.items() if name not in _OWN_OF_FUNCTION}
    return extra | {"function": inner} if inner else extra
