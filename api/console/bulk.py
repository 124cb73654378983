"""What an operator does to many things at once: cancel what a filter shows, deliver webhooks again.

Each request has a bound, and says how much is left: a page repeats it and shows how far it is. One
line of the log for each generation and each webhook says who did it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.types import ASGIApp

from api.console.actions import note_action
from api.console.guard import operator_of
from api.console.limits import TICK_S
from api.console.rows import Filter
from api.console.sampler import Sampler
from api.deadline import answer_deadline
from api.errors import request_error
from api.node import Node
from api.response import json_response
from shared.config.credentials import Identity
from shared.errors import Expired, NotFound, Unavailable
from shared.later.dead_letters import count_dead, newest_dead, redrive
from shared.queue.endings import cancel

CANCELLED_AT_ONCE = 200  # generations of one request
CANDIDATES_MAX = 2_000  # that one request looks at: some have ended since they were reported
RUNNING_CANCELS = 16  # at the same time
HOOKS_AT_ONCE = 100  # webhooks of one request
WORKERS_REPORT_S = 3 * TICK_S  # for workers to report what they run, if no console was open


class _Progress:
    """Gives out generations, so that never more than `at_most` are cancelled.

    Attributes:
        failure: Redis did not answer; then no further generations are given out.
    """

    def __init__(self, ids: Iterator[str], at_most: int) -> None:
        self.tried = 0
        self.cancelled = 0
        self.failure: Unavailable | None = None
        self._ids = ids
        self._room = at_most  # less those under way

    def take(self) -> str | None:
        """Return the next one.

        None: none is left, enough are cancelled or under way, or Redis did not answer.
        """
        if self.failure is not None or not self._room:
            return None
        if (generation_id := next(self._ids, None)) is None:
            return None
        self._room -= 1
        self.tried += 1
        return generation_id

    def settle(self, *, is_cancelled: bool) -> None:
        """Note the outcome of one that was taken. One that had ended makes room for another."""
        self.cancelled += is_cancelled
        self._room += not is_cancelled


class ConsoleBulk:
    """The handlers of POST /v1/console/generations/cancel and /v1/console/webhooks/redrive."""

    def __init__(self, node: Node, sampler: Sampler) -> None:
        self._node = node
        self._sampler = sampler

    async def cancel(self, request: Request) -> ASGIApp:
        """POST /v1/console/generations/cancel: end what the filter of the query shows.

        The oldest come first, `at_most` of them. `left` counts those that this request did not try.
        A repeat goes on with them.

        Raises:
            Unavailable: Redis did not answer in time; repeating the request is safe.
        """
        identity = operator_of(self._node, request)
        wanted, at_most = _wanted(request), _at_most(request)
        ids = await self._find(wanted)
        progress = _Progress(iter(ids[:CANDIDATES_MAX]), at_most)
        async with asyncio.TaskGroup() as group:
            for _ in range(RUNNING_CANCELS):
                group.create_task(self._cancel_in_turn(progress, identity))
        if progress.failure is not None:
            raise progress.failure
        left = len(ids) - progress.tried
        found = {"matched": len(ids), "cancelled": progress.cancelled, "left": left}
        return json_response(found, 202)

    async def _cancel_in_turn(self, progress: _Progress, identity: Identity) -> None:
        """Cancel one generation after the other, until enough are cancelled or Redis fails.

        Unavailable is noted and not raised: the group would abort the cancels under way, and hide
        the error in an ExceptionGroup, which the error boundary takes for a defect.
        """
        while (generation_id := progress.take()) is not None:
            is_cancelled = False
            try:
                is_cancelled = await self._cancel(generation_id, identity)
            except Unavailable as exc:
                progress.failure = exc
            finally:
                progress.settle(is_cancelled=is_cancelled)

    async def _find(self, wanted: Filter) -> Sequence[str]:
        sampler = self._sampler
        async with sampler.watching(wanted, is_page=False) as watcher:
            was_running, seen = sampler.ticks > 0, sampler.ticks
            try:
                async with asyncio.timeout(WORKERS_REPORT_S):
                    seen = await sampler.next_picture(seen)
                    while not was_running and sampler.lacks_runs:
                        seen = await sampler.next_picture(seen)
            except TimeoutError:
                if not seen:
                    raise request_error("unavailable", "Redis does not answer in time") from None
            async with answer_deadline():
                return await sampler.complete(watcher)

    async def _cancel(self, generation_id: str, identity: Identity) -> bool:
        """Cancel one generation. False: it had ended."""
        try:
            async with answer_deadline():
                before = await self._node.meta_to_end(generation_id, identity)
                if before.is_ended:
                    return False
                by = self._node.asker(identity, before)
                meta = await cancel(self._node.store, generation_id, by=by)
        except (NotFound, Expired):
            return False
        note_action("cancel", generation_id, identity, meta.status if meta else "gone")
        return meta is not None and meta.status == "cancelled"

    async def redrive_webhooks(self, request: Request) -> ASGIApp:
        """POST /v1/console/webhooks/redrive: deliver webhooks again that were given up.

        The query has either `ids`, or `all=yes` for the newest `HOOKS_AT_ONCE`.
        """
        identity = operator_of(self._node, request)
        named = [name for name in request.query_params.get("ids", "").split(",") if name]
        is_all = request.query_params.get("all") == "yes"
        if bool(named) == is_all or len(named) > HOOKS_AT_ONCE:
            raise request_error(
                "invalid_request", f"name 1 to {HOOKS_AT_ONCE} webhooks in ids, or say all=yes"
            )
        redis = self._node.redis
        async with answer_deadline():
            ids = named or await newest_dead(redis, HOOKS_AT_ONCE)
            done = await redrive(redis, ids)
            left = await count_dead(redis)
        for name, is_done in zip(ids, done, strict=True):
            if is_done:
                note_action("redrive webhook", name, identity, "due")
        return json_response({"redriven": sum(done), "left": left}, 202)


def _wanted(request: Request) -> Filter:
    wanted = Filter.read(request.query_params)
    if wanted.state == "ended":
        raise request_error("invalid_request", "ended generations cannot be cancelled")
    return wanted


def _at_most(request: Request) -> int:
    text = request.query_params.get("at_most", "")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= CANCELLED_AT_ONCE:
        message = f"at_most must be a number from 1 to {CANCELLED_AT_ONCE}"
        raise request_error("invalid_request", message)
    return int(text)
