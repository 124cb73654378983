"""Accepts prompts for one API node, and counts them.

The steps of an acceptance in Redis are shared/queue/accept.py's. This module adds what a node does
around them: it lets the hub listen before the log exists, checks that the server has not changed
meanwhile, and keeps the metrics. It knows no request and no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from prometheus_client import Counter, Histogram

from api.deadline import answer_deadline
from shared.config import logs
from shared.config.credentials import Identity
from shared.config.limits import NO_LIMITS, OwnerLimits
from shared.errors import NotFound, Unavailable
from shared.log.records import Meta
from shared.queue.accept import Accepted, Acceptor, NewGeneration
from shared.queue.allowance import Allowance, OverLimit
from shared.queue.new_generation import queued_meta


class LogListener(Protocol):
    """The calls that an acceptance makes on the hub."""

    def expect_creation(self, meta: Meta) -> None:
        """Listen to a generation that this node is about to create."""

    def cancel_expected(self, generation_id: str) -> None:
        """Stop listening: the generation was not created."""


class Acceptance:
    """Accepts the prompts of one node.

    Args:
        acceptor: writes the prompt to Redis.
        listener: the node's hub.
        limits_of: returns the limits of who asks.
        accepted: counts new prompts by priority; repeats are not counted.
        node: the name of the node, which meta notes.
        refused: counts prompts beyond a limit of their owner, by code.
        accept_seconds: takes the duration of each acceptance, failed ones included.

    Attributes:
        on_asked: called with the id and the model of each prompt before it is accepted.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        listener: LogListener,
        *,
        limits_of: Callable[[Identity], OwnerLimits],
        node: str = "",
        accepted: Counter,
        refused: Counter,
        accept_seconds: Histogram,
    ) -> None:
        self._acceptor = acceptor
        self._listener = listener
        self._limits_of = limits_of
        self._node = node
        self._accepted = accepted
        self._refused = refused
        self._accept_seconds = accept_seconds
        self.on_asked: Callable[[str, str], None] | None = None

    async def accept(
        self,
        new: NewGeneration,
        identity: Identity,
        *,
        is_read: bool,
        note: Callable[[Allowance], None] | None = None,
    ) -> Accepted:
        """Accept a prompt, or find the generation that the same idempotency key has created.

        Args:
            identity: who asks; the owner of `new`.
            note: called with the rest of the owner's limits, if there are any, also on a refusal.
            is_read: this request is answered from the log. Without an idempotency key the
                generation is certainly new, so the hub listens to it before its log exists. Then
                the first entry reaches the reader without a read of the log.

        Raises:
            RequestError: as `Acceptor.accept`.
            NotFound: the generation of a repeated key has been deleted or lost.
            Unavailable: Redis did not answer in time. The prompt may have been accepted; with an
                idempotency key it is safe to repeat.
        """
        generation_id = self._acceptor.draw_id()
        limits = self._limits_of(identity)
        if self._node or limits != NO_LIMITS:
            asked_as = logs.request_id.get()
            new = replace(new, limits=limits, node=self._node, request_id=asked_as)
        if self.on_asked is not None:
            self.on_asked(generation_id, new.model)
        expecting: asyncio.Handle | None = None
        if is_read and not new.idempotency_key:
            meta = queued_meta(generation_id, new, 0)
            # In the loop's next turn, so that the commands that create the generation leave first.
            expecting = asyncio.get_running_loop().call_soon(self._listener.expect_creation, meta)
        try:
            with self._accept_seconds.time():
                async with answer_deadline():
                    accepted = await self._accept(new, generation_id)
        except BaseException as exc:
            if isinstance(exc, OverLimit):
                self._refused.labels(exc.code).inc()
                if note is not None:
                    note(exc.allowance)
            if expecting is not None:
                expecting.cancel()
                self._listener.cancel_expected(generation_id)
            raise
        if note is not None and accepted.allowance is not None:
            note(accepted.allowance)
        if accepted.status == "sealed":
            raise NotFound
        if accepted.is_new:
            self._accepted.labels(new.priority).inc()
        return accepted

    async def _accept(self, new: NewGeneration, generation_id: str) -> Accepted:
        """Accept a prompt, and make sure that the server which took it is still the one in use.

        The steps of an acceptance may begin at a master that is left before they end, for example
        because Sentinel has promoted a replica. Then the generation may exist at the old master
        only, and no answer may say that it was accepted.

        Raises:
            Unavailable: the generation is not at the new master.
        """
        store = self._acceptor.store
        pipeline = store.scripts.pipeline
        losses = pipeline.losses
        accepted = await self._acceptor.accept(new, generation_id)
        while losses != pipeline.losses:
            losses = pipeline.losses
            if await store.meta(accepted.generation_id) is None:
                raise Unavailable("the connection was lost while the prompt was being accepted")
        return accepted
