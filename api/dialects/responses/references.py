"""Finds the items that the input of a response names by their ids (`item_reference`).

Each item's id holds the id of its response, so no index is needed. Each response is read once. An
id that leads to no item is an error that names the id: an answer without the item would be wrong.
Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from api.dialects.responses.response_object import generation_of_item, response_id
from api.errors import request_error
from shared.errors import Expired, NotFound, RequestError

# Reads the items of a response: its input and its output.
ReadItems = Callable[[str], Awaitable[list[dict[str, Any]]]]


async def find_items(ids: Sequence[str], read: ReadItems) -> dict[str, dict[str, Any]]:
    """Return the items with these ids.

    Args:
        read: gets the id of a response; raises NotFound or Expired if it is gone.

    Raises:
        RequestError: 404, no such item, or what `read` raises.
        Unavailable: as `read`.
    """
    found: dict[str, dict[str, Any]] = {}
    are_read: set[str] = set()
    for item_id in ids:
        response = response_id(generation_of_item(item_id))
        if response not in are_read and generation_of_item(item_id):
            are_read.add(response)
            try:
                found |= {item["id"]: item for item in await read(response)}
            except (NotFound, Expired):
                raise _no_such_item(item_id) from None
        if item_id not in found:
            raise _no_such_item(item_id)
    return {item_id: found[item_id] for item_id in ids}


def _no_such_item(item_id: str) -> RequestError:
    return request_error(
        "not_found", f"input: no item {item_id[:80]!r} of yours: send the item itself"
    )
