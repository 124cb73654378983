"""Finds the generation that LobeHub's clients call an operation, and reads their event numbers.

An operation is named by the generation's id, or by the `Idempotency-Key` under which the generation
was started: so the application chooses the name before the answer exists.
"""

from __future__ import annotations

import re
from typing import Any

from api.errors import request_error
from api.node import Node
from api.readers.lookup import find_generation
from shared.config.credentials import Identity
from shared.errors import NotFound
from shared.log.ids import GENERATION_PREFIX, START, EventId
from shared.log.records import Meta

NAME_CHARACTERS_MAX = 255  # of an Idempotency-Key
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


async def find_operation(node: Node, viewer: Identity, name: str, *, seen: int = 0) -> Meta:
    """Return the generation of an operation.

    Args:
        seen: the number of the last event that the client has.

    Raises:
        NotFound: the viewer may see no such operation.
        Unavailable: Redis did not answer in time.
    """
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise NotFound("operationId")
    found = None
    if not name.startswith(GENERATION_PREFIX):
        found = await node.acceptor.find(viewer.owner, name)
    cursor = EventId(1, 1) if seen else START
    try:
        return await find_generation(node.hub, node.store, viewer, found or name, cursor)
    except NotFound:
        # As for an absent name: a share must not tell which operations its maker has.
        raise NotFound("operation") from None


def read_number(value: Any) -> int:
    """Return the number in a `lastEventId`; 0: the client has no event.

    Raises:
        RequestError: 400, it is none.
    """
    if value in (None, ""):
        return 0
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        raise request_error("cursor_invalid", "lastEventId: the number of an event, a string")
    return int(value)
