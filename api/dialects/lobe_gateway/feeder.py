"""Begins and writes the operations that LobeHub's server feeds.

An operation is a generation of the user whom the server names, whose producer is the server. The
node keeps nothing between two POSTs: the name of the operation leads to the generation in two keys,
one of the user and one of the feeder. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from api.dialects.denial import deny
from api.dialects.lobe_gateway.events import status_of
from api.dialects.lobe_gateway.feed_body import Entries
from api.dialects.lobe_gateway.feed_order import FeedOrder, Outcome
from api.dialects.lobe_gateway.messages import FED
from api.dialects.lobe_gateway.patience import until_redis_answers
from api.intake.body import invalid_request
from api.node import Node
from shared.config.credentials import ACT, Identity
from shared.errors import NotFound, RequestError
from shared.log.feeding import (
    Fed,
    Repeated,
    draw_repeat_key,
    feed,
    operation_status,
)
from shared.log.owner_bytes import OWNER_COUNT_STEP_BYTES
from shared.log.producing import (
    Appended,
    Denied,
    ProducerTerms,
    begin_producing,
    draw_token,
    initial_holder_token,
)
from shared.log.request import Request, encode_request
from shared.queue.allowance import Allowance
from shared.queue.extension import Extensions
from shared.queue.fed_names import fed_key, find_fed, name_fed
from shared.queue.leaving import forget
from shared.queue.new_generation import NewGeneration
from shared.queue.producer_bytes import count_bytes

MODEL = "lobehub"  # of the generation, in listings and in the usage
# Events may overtake `init`, which older versions of LobeHub do not wait for.
INIT_WAIT_S = 1.0
INIT_LOOK_S = 0.05


class Feeder:
    """The operations of all feeders, at one node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.order = FeedOrder(self._write)
        self._extensions = Extensions(node.store)

    async def begin(
        self,
        identity: Identity,
        operation: str,
        user: Any,
        meta: dict[str, Any],
        *,
        note: Callable[[Allowance], None],
    ) -> str:
        """Create the generation of an operation, or find it; return its id.

        Args:
            note: called with the rest of the owner's limits, if there are any, also on a refusal.

        Raises:
            RequestError: 422 a wrong user, or the operation is another user's; as `accept`.
            NotFound: the operation existed and is gone.
            Unavailable: Redis did not answer in time; a repeat is safe.
        """
        owner = _user_identity(self.node, identity, user)
        terms = ProducerTerms(self.node.settings.lobehub_lease_s, draw_token())
        about = {
            "operation": operation, "feeder": _feeder_name(identity), "meta": meta,
            "acts": identity.may(ACT),
        }  # fmt: skip
        new = NewGeneration(
            owner=owner.owner,
            model=MODEL,
            request=encode_request(Request(messages=[])),
            idempotency_key=operation,
            body_digest=hashlib.sha256(f"{FED} {_feeder_name(identity)}".encode()).hexdigest(),
            dialect=msgspec.json.encode({FED: about}),
            producer=terms,
            fed=fed_key(_feeder_name(identity), operation),
        )
        return await until_redis_answers(
            lambda: self._begin(identity, operation, owner, new, note=note)
        )

    async def _begin(
        self,
        identity: Identity,
        operation: str,
        owner: Identity,
        new: NewGeneration,
        *,
        note: Callable[[Allowance], None],
    ) -> str:
        node, terms = self.node, new.producer
        assert terms is not None
        known = await find_fed(node.store, _feeder_name(identity), operation)
        if known is not None and (found := await node.store.meta(known)) is not None:
            if found.owner != owner.owner:
                raise invalid_request("this operationId belongs to another userId")
        accepted = await node.acceptance.accept(new, owner, is_read=False, note=note)
        generation_id, token = accepted.generation_id, terms.initial_holder_token
        if not accepted.is_new:
            token = await initial_holder_token(node.store, generation_id)
        await name_fed(node.store, _feeder_name(identity), operation, generation_id)
        begun = await begin_producing(node.store, generation_id, token, is_first=True)
        if isinstance(begun, Denied) and begun.reason != "ended":
            deny(begun)
        return generation_id

    async def find(self, identity: Identity, operation: str, *, is_early: bool = False) -> str:
        """Return the generation of an operation of this feeder.

        Args:
            is_early: the request may have overtaken its `init`: wait a moment for it.

        Raises:
            NotFound: this feeder has no such operation.
            Unavailable: Redis did not answer in time.
        """
        now = asyncio.get_running_loop().time
        until_s = now() + (INIT_WAIT_S if is_early else 0)
        while True:
            found = await find_fed(self.node.store, _feeder_name(identity), operation)
            if found is not None:
                return found
            if now() >= until_s:
                raise NotFound("operation: send POST …/api/operations/init first")
            await asyncio.sleep(INIT_LOOK_S)

    async def put(
        self, generation_id: str, entries: Entries, *, ticket: int, repeat_key: str = ""
    ) -> Outcome:
        """Write entries in their turn, and try again while Redis is away.

        Args:
            ticket: of `order.ticket`.

        Raises:
            RequestError, NotFound: the operation has ended, is full, or is gone.
            Unavailable: Redis did not answer in time; with a repeat key a repeat is safe.
        """
        key = repeat_key or draw_repeat_key()
        fed = Fed(generation_id, entries.entries, entries.end, key, entries.status)

        async def write() -> Outcome:
            outcome = await self.order.put(fed, entries.at_ms, ticket)
            if isinstance(outcome, Denied):
                await self._note_end(generation_id, outcome)
                deny(outcome)
            await self._count(generation_id, outcome)
            return outcome

        return await until_redis_answers(write)

    async def status(self, identity: Identity, operation: str) -> dict[str, Any]:
        """Return the status of an operation, and whether this node has a reader of it.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        store = self.node.store
        found = await find_fed(store, _feeder_name(identity), operation)
        meta = None if found is None else await store.meta(found)
        if meta is None or meta.status == "sealed":
            return {"clientConnected": False, "status": "unknown"}
        told = "" if meta.is_ended else await operation_status(store, meta.generation_id)
        relay = self.node.hub.relays.get(meta.generation_id)
        is_read = relay is not None and relay.holds > 0
        return {"clientConnected": is_read, "status": told or status_of(meta)}

    async def _write(self, appends: list[Fed]) -> list[Outcome]:
        return await feed(self.node.store, appends)

    async def _count(self, generation_id: str, outcome: Appended | Repeated) -> None:
        """Count the stored bytes at each step of growth, and leave the indexes at the end."""
        store, status = self.node.store, outcome.status
        if isinstance(outcome, Appended) and status == "running":
            await self._extensions.note(generation_id, outcome)
            step = OWNER_COUNT_STEP_BYTES
            if outcome.bytes_before // step == outcome.bytes_after // step:
                return
            meta = await store.meta(generation_id)
            if meta is not None:
                status = await count_bytes(store, meta, outcome)
        if status != "running":
            await forget(store, generation_id)

    async def _note_end(self, generation_id: str, denied: Denied) -> None:
        if denied.reason == "ended":
            await forget(self.node.store, generation_id)


def _feeder_name(identity: Identity) -> str:
    """Return the name under which a feeder finds its operations: the owner of its key.

    Credentials without `act` have other names, which no owner can have: a user whose name is that
    of the service key's owner must not write where the service key writes.
    """
    owner = (identity.by or identity).owner
    return owner if identity.may(ACT) else f"{owner}\n"


def _user_identity(node: Node, identity: Identity, user: Any) -> Identity:
    """Return whose work an operation is: of the named user if the key acts for users.

    Raises:
        RequestError: 422, no user may have this name.
    """
    if not isinstance(user, str) or not user:
        raise invalid_request("userId must be a string that is not empty")
    if not identity.may(ACT):
        return identity
    try:
        return node.authenticator.act_for(identity, user)
    except RequestError as exc:
        raise invalid_request(exc.message.replace("X-On-Behalf-Of", "userId")) from None
