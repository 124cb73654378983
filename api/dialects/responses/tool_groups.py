"""The tools of a request as one list: alone, in groups, and in items of the input. Pure.

Codex sends tools in groups (`namespace`), and for newer models in an item of the input
(`additional_tools`). Chat completions have neither, so the model server gets each tool of a group
under a name that joins both names. The join depends on these names only, so a call in the history
gets the same name again.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.intake.body import invalid_request

ADDITIONAL_TOOLS = "additional_tools"
NAMESPACE = "namespace"  # the type of a group, and the member of a call that names the group
_JOINT = "__"
NAME_MAX = 64  # characters; OpenAI and others refuse longer names of functions


@dataclass(frozen=True)
class PlacedTool:
    """A tool and its place in the body.

    Attributes:
        where: the place, for example `tools[2].tools[0]`.
        tool: the tool, with the name that the model server gets.
        origin: the name of its group and its own name; None: the tool is in no group.
    """

    where: str
    tool: dict[str, Any]
    origin: tuple[str, str] | None = None


def chat_name(named: dict[str, Any]) -> Any:
    """Return the name that the model server gets for a tool, a call or a choice.

    A value that is no string is returned as it is, for the caller to refuse.
    """
    name, group = named.get("name"), named.get(NAMESPACE)
    return f"{group}{_JOINT}{name}" if _is_text(group) and isinstance(name, str) else name


def placed_tools(body: dict[str, Any], ignored: list[str]) -> list[PlacedTool]:
    """Return every tool of a request in its order, the tools of groups one by one.

    Args:
        ignored: gets the place of each tool of a group whose joined name is taken or too long.

    Raises:
        RequestError: 422, a list of tools that is not an array of objects with a type.
    """
    found = _read_list("tools", body.get("tools", []))
    items = body.get("input")
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict) and item.get("type") == ADDITIONAL_TOOLS:
            found += _read_list(f"input[{index}].tools", item.get("tools"))
    taken = {str(placed.tool.get("name")) for placed in found if placed.origin is None}
    kept = []
    for placed in found:
        if placed.origin is not None:
            name = placed.tool["name"]
            if name in taken or len(name) > NAME_MAX:
                ignored.append(placed.where)
                continue
            taken.add(name)
        kept.append(placed)
    return kept


def _read_list(where: str, tools: Any, group: str = "") -> list[PlacedTool]:
    if not isinstance(tools, list):
        raise invalid_request(f"{where} must be an array")
    found: list[PlacedTool] = []
    for index, tool in enumerate(tools):
        place = f"{where}[{index}]"
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise invalid_request(f"{place} must be an object with a type")
        if tool["type"] == NAMESPACE and not group and _is_text(tool.get("name")):
            found += _read_list(f"{place}.tools", tool.get("tools"), tool["name"])
        elif group and isinstance(tool.get("name"), str):
            joined = chat_name({"name": tool["name"], NAMESPACE: group})
            found.append(PlacedTool(place, {**tool, "name": joined}, (group, tool["name"])))
        else:
            found.append(PlacedTool(place, tool))
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
