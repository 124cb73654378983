"""Finds the answer of a request that is sent again: by its key, or by the turn that it names.

Source: docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

from dataclasses import replace

from api.deadline import answer_deadline
from api.dialects.responses.request import ResponseRequest
from api.dialects.responses.stored import StoredResponses
from api.dialects.responses.turn_key import turn_key
from api.node import Node
from api.readers.lookup import find_generation
from shared.config.credentials import Identity
from shared.errors import NotFound
from shared.log.records import Meta

ANSWERS_MAX = 8  # failed or cancelled answers of one turn, after each of which a new one is made
_FAILED = ("failed", "cancelled")


class Repeats:
    """The answers of one node's Redis that a request may repeat."""

    def __init__(self, node: Node, stored: StoredResponses) -> None:
        self.node = node
        self.stored = stored

    async def with_turn(self, parsed: ResponseRequest, identity: Identity) -> ResponseRequest:
        """Return a request with the key of its turn, and with the answer that it repeats, if any.

        Args:
            parsed: with its whole conversation.

        Raises:
            RequestError: too many large reads are running.
            Unavailable: Redis did not answer in time.
        """
        if parsed.turn is None:
            return parsed
        name = await turn_key(parsed.turn, parsed.request)
        for count in range(ANSWERS_MAX):
            key = f"{name}:{count}"
            found = await self.find(key, identity)
            if found is None or found.status not in _FAILED:
                return replace(parsed, idempotency_key=key, repeated=found)
        return parsed  # each further repeat makes an answer of its own

    async def find(self, key: str, identity: Identity) -> Meta | None:
        """Return the generation that a key names, with its request; None: there is none.

        Raises:
            RequestError, Unavailable: as `with_turn`.
        """
        node = self.node
        async with answer_deadline():
            generation_id = await node.acceptor.find(identity.owner, key)
            if generation_id is None:
                return None
            try:
                meta = await find_generation(node.hub, node.store, identity, generation_id)
                return await self.stored.with_request(meta)
            except NotFound:
                return None
