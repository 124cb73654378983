"""`generate: false`: a response without an answer, which later requests continue.

No worker and no model takes part. The node itself is the producer of the generation and ends it at
once (docs/producers.md), so the response is in the log like any other: every node finds it.
Source: docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from api.deadline import answer_deadline
from api.dialects.responses.request import ResponseRequest
from api.errors import unavailable
from api.intake.body import CheckedMembers, check_members
from api.intake.large_body import generation_in_steps
from api.node import Node
from shared.config.credentials import Identity
from shared.log.events import Counts, End, encode
from shared.log.producing import (
    Denied,
    OutsideEvents,
    ProducerTerms,
    append_outside,
    begin_producing,
    draw_token,
    initial_holder_token,
)
from shared.log.records import Meta
from shared.queue.leaving import forget

LEASE_S = 10.0  # a node that dies between the creation and the end leaves a failed response
_END = encode(End("completed", "stop", usage=Counts(0, 0, 0)))


async def warm_up(
    node: Node,
    identity: Identity,
    members: Mapping[str, Any],
    parsed: ResponseRequest,
    *,
    size: int,
    idempotency_key: str = "",
) -> Meta:
    """Store a request as a completed response without output.

    Args:
        members: of the frame, without those that are null.
        size: bytes of the frame.

    Raises:
        RequestError: the request was refused.
        Unavailable: Redis did not answer in time.
    """

    def check() -> CheckedMembers:
        checked = check_members(
            members, parsed.request, owner=identity.owner, models=node.models,
            settings=node.settings, idempotency_key=idempotency_key,
        )  # fmt: skip
        terms = ProducerTerms(LEASE_S, draw_token())
        return replace(checked, new=replace(checked.new, producer=terms, tokens=0))

    new = await generation_in_steps(node.large, size, check)
    assert new.producer is not None
    accepted = await node.acceptance.accept(new, identity, is_read=False)
    generation_id, token = accepted.generation_id, new.producer.initial_holder_token
    async with answer_deadline():
        if not accepted.is_new:
            token = await initial_holder_token(node.store, generation_id)
        await _end(node, generation_id, token)
        meta = await node.store.meta(generation_id)
    if meta is None:
        raise unavailable()
    return replace(meta, request=new.request)


async def _end(node: Node, generation_id: str, token: str) -> None:
    """Begin and end the generation; a repeat finds that it has ended."""
    tenure = await begin_producing(node.store, generation_id, token, is_first=True)
    if isinstance(tenure, Denied):
        return
    end = OutsideEvents(generation_id, token, tenure.attempt, tenure.next_seq, (_END,), "completed")
    await append_outside(node.store, end)
    await forget(node.store, generation_id)
