"""The application's state, which AG-UI keeps beside the messages: snapshots and JSON patches. Pure.

A producer or plug-in writes `data` events: the name `state` is a snapshot, `state_delta` a patch
(RFC 6902). Source: docs/dialects/ag-ui.md, "State".
"""

from __future__ import annotations

from typing import Any

SNAPSHOT = "state"
DELTA = "state_delta"
# Operation -> its members beside `op` and `path`.
_MEMBERS: dict[str, tuple[str, ...]] = {
    "add": ("value",), "replace": ("value",), "test": ("value",), "remove": (),
    "move": ("from",), "copy": ("from",),
}  # fmt: skip


def patch_in(value: Any) -> list[dict[str, Any]] | None:
    """Return the operations of a JSON patch, with the members that they define.

    Returns:
        None: the value is no patch. A client ends its run over a wrong one.
    """
    if not isinstance(value, list) or not value:
        return None
    operations = [_operation(item) for item in value]
    return None if None in operations else [item for item in operations if item is not None]


def _operation(item: Any) -> dict[str, Any] | None:
    if not isinstance(item, dict) or not isinstance(item.get("path"), str):
        return None
    name = item.get("op")
    members = _MEMBERS.get(name) if isinstance(name, str) else None
    if members is None or any(member not in item for member in members):
        return None
    if not isinstance(item.get("from", ""), str):
        return None
    return {"op": name, "path": item["path"], **{member: item[member] for member in members}}
