"""`response.create` on a socket: from the client's event to the generation that answers it.

    idempotency_key   the same key finds the generation that an earlier event has created
    a named turn      the same, by a key made of what the model gets (repeats.py)
    generate: false   a response without an answer (warm_up.py)

Invariant: a repeat after a cut is never a second answer. Source:
docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Any, NamedTuple

from api.dialects.prompt import accept_members
from api.dialects.responses.frames import SocketError
from api.dialects.responses.repeats import Repeats
from api.dialects.responses.request import ResponseRequest, parse_response
from api.dialects.responses.stored import StoredResponses
from api.dialects.responses.warm_up import warm_up
from api.intake.body import check_idempotency_key, invalid_request
from api.node import Node
from shared.config.credentials import Identity
from shared.errors import Expired, NotFound
from shared.log.records import Meta

log = logging.getLogger(__name__)

# A client of a socket that was cut needs longer to come back than TAILRACE_GRACE_S allows.
RESUME_GRACE_S = 30.0
NUMBER_MAX = 2**53
_ENVELOPE = ("type", "stream_id", "stream", "background")


class Order(NamedTuple):
    """A `response.create`, without the members that only the socket knows.

    Attributes:
        body: as of POST /v1/responses.
        size: bytes of the event.
        key: the idempotency key; empty: none.
        number: of the first event that the client wants.
        is_generated: False: only warm up.
    """

    body: dict[str, Any]
    size: int
    key: str
    number: int
    is_generated: bool


def read_order(body: dict[str, Any], size: int) -> Order:
    """Read the members that only the socket knows, and take them out of `body`.

    Raises:
        RequestError: a member is wrong.
    """
    key = body.pop("idempotency_key", None)
    if key is not None:
        key = check_idempotency_key(key if isinstance(key, str) else "")
    number = read_number(body.pop("starting_after", None))
    if number and not key:
        raise invalid_request("starting_after needs the idempotency_key of the first event")
    is_generated = body.pop("generate", True)
    if not isinstance(is_generated, bool):
        raise invalid_request("generate must be true or false")
    if body.get("background"):
        raise SocketError("invalid_request", "background is not for sockets", "background")
    for name in _ENVELOPE:
        body.pop(name, None)
    return Order(body, size, key or "", number, is_generated)


def read_number(after: Any) -> int:
    """Return the number of the first event after `starting_after`; None: from the start.

    Raises:
        RequestError: 422, no whole number.
    """
    if after is None:
        return 0
    if isinstance(after, bool) or not isinstance(after, int) or not 0 <= after < NUMBER_MAX:
        raise invalid_request("starting_after must be a sequence_number")
    return after + 1


class Creation:
    """Creates the responses of one socket."""

    def __init__(self, node: Node, stored: StoredResponses) -> None:
        self.node = node
        self.stored = stored
        self.repeats = Repeats(node, stored)

    async def accept(self, order: Order, identity: Identity, known: Container[str]) -> Meta:
        """Return the new generation, or the one that an earlier event has created.

        Args:
            known: ids of responses that the client may continue although they were not stored.

        Raises:
            RequestError: the request was refused.
            Unavailable: Redis did not answer in time.
        """
        node, size = self.node, order.size
        grace_s = max(node.settings.grace_s, RESUME_GRACE_S)
        node.refuse_while_draining()
        async with node.bodies.turn(size):
            parsed = await node.large.step(
                size,
                lambda: parse_response(
                    order.body, grace_s=grace_s, may_be_empty=not order.is_generated
                ),
            )
            parsed = await self.stored.add_items(parsed, identity)
            try:
                parsed = await self.stored.add_conversation(parsed, identity, known=known)
            except (NotFound, Expired):
                found = await self.repeats.find(order.key, identity) if order.key else None
                if found is None:
                    raise _previous_not_found(parsed.previous) from None
                return found
            meta = await self._accept(order, parsed, identity)
        if parsed.ignored:
            log.warning("left out parts of a request", extra={
                "generation_id": meta.generation_id, "places": ", ".join(parsed.ignored[:50]),
            })  # fmt: skip
        return meta

    async def _accept(self, order: Order, parsed: ResponseRequest, identity: Identity) -> Meta:
        node, body, size, key = self.node, order.body, order.size, order.key
        if not order.is_generated:
            return await warm_up(node, identity, body, parsed, size=size, idempotency_key=key)
        if not key:
            parsed = await self.repeats.with_turn(parsed, identity)
            key = parsed.idempotency_key
        return parsed.repeated or await accept_members(
            node, identity, body, parsed, size=size, idempotency_key=key, needs_request=True
        )


def _previous_not_found(response: str) -> SocketError:
    return SocketError(
        "previous_response_not_found",
        f"Previous response with id {response[:80]!r} not found.",
        "previous_response_id",
    )
