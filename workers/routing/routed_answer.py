"""Reads one attempt's answer from the backends of a route.

Before the first event of the attempt, a failure makes the next backend answer, and the log does not
show the failure. Later, a backend that can continue goes on behind the text of the log, in the same
attempt. An event `start` stands before the first event of each backend that writes, and names it.
Source: docs/routing.md.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec

from shared.config.models import Model, member_model
from shared.errors import BackendError, Unavailable
from shared.log.events import AnyEvent, Start
from shared.log.records import Entry
from shared.log.request import Request
from shared.metrics.answers import AnswerMetrics
from workers.backends.contract import Backend
from workers.routing.call import Call, Items
from workers.routing.candidates import (
    Candidate,
    Plans,
    ask_order,
    deciding_failure,
    others_may_answer,
)
from workers.routing.health import Health
from workers.routing.policy import Load, conversation_key, preference
from workers.routing.race import Race, Spawn
from workers.stages.pipeline import Pipeline
from workers.takeover.answer import Asked
from workers.takeover.continuation import writer_of
from workers.takeover.upstream_stop import stop_upstream
from workers.takeover.verdicts import Verdicts
from workers.writing.outbox import Outbox
from workers.writing.usage import AnswerUsage

log = logging.getLogger(__name__)


class RoutingParts(Protocol):
    """What a route needs of the worker: members of `WorkerParts`."""

    @property
    def models(self) -> Mapping[str, Model]: ...
    @property
    def backends(self) -> Mapping[str, Backend]: ...
    @property
    def verdicts(self) -> Verdicts: ...
    @property
    def health(self) -> Health: ...
    @property
    def metrics(self) -> AnswerMetrics: ...
    @property
    def counters(self) -> dict[str, float]: ...
    @property
    def spawn(self) -> Spawn: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedRequest:
    """One attempt of a generation whose model is a route.

    Attributes:
        model: the route.
        owner, session: of the generation; for the policy `prefix`.
        usage: of the attempt; is told when another backend begins to count.
        late: takes items that were held back at a seam for too long.
        stages: opens the stages of a request to a backend, behind the entries of the log.
    """

    model: Model
    request: Request
    generation_id: str
    owner: str
    session: str
    outbox: Outbox
    usage: AnswerUsage
    late: Callable[[Items], None]
    stages: Callable[[str, Sequence[Entry]], Pipeline | None]


class RoutedAnswer:
    """The answer of one attempt.

    Attributes:
        asked: how often each backend was asked.
        writer: the backend that has written last in this attempt; empty: none has spoken.
    """

    def __init__(self, parts: RoutingParts, routed: RoutedRequest) -> None:
        assert routed.model.route is not None
        self._parts, self._routed, self._rules = parts, routed, routed.model.route
        self._failures: list[BackendError] = []
        self._silent: set[str] = set()  # each would cost a whole time limit again
        self._call: Call | None = None  # the request that is read, or was read last
        # The request that has spoken last, and whether its backend was asked then.
        self._speaker: tuple[Call, bool] | None = None
        self.asked: Counter[str] = Counter()
        self.writer = ""

    async def read(self) -> AsyncGenerator[Items, None]:
        """Yield what belongs to the log, as `read_answer` does.

        Raises:
            BackendError: the attempt has failed at every backend that may be asked.
        """
        while (call := await self._ask(self._candidates(), is_last_resort=True)) is not None:
            try:
                async with aclosing(self._read(call)) as stream:
                    async for items in stream:
                        yield items
                return
            except BackendError as error:
                self._note_failure(error)
        raise deciding_failure(self._failures)

    async def _read(self, call: Call) -> AsyncGenerator[Items, None]:
        """Yield the events of one request, or of the faster of two."""
        self._call = call
        if self._rules.hedge_after_s is None or call.candidate.has_part:
            async with aclosing(call.read()) as stream:
                async for items in stream:
                    yield self._begin(call, items) if items else items
            return
        race = Race(self._parts.spawn, self._rules.hedge_after_s, self._ask_second)
        async with aclosing(race.read(call)) as both:
            async for speaker, items in both:
                self._call = speaker
                yield self._begin(speaker, items) if items else items

    def log_fields(self) -> dict[str, Any]:
        """Return fields for the log line of the attempt."""
        return {"backend": self.writer, "asked": dict(self.asked)}

    def flush(self) -> Sequence[AnyEvent]:
        """Return what the stages of the request that is read hold back."""
        return self._call.flush() if self._call is not None else ()

    async def finished(self) -> None:
        """Let the stages of the request that was read work after the end."""
        if self._call is not None:
            await self._call.finished()

    def push_late(self, items: Items) -> None:
        """Pass on what a seam held back for too long."""
        if not items:  # a stage holds the text back
            return
        assert self._call is not None
        self._routed.late(self._begin(self._call, items))

    # Choosing

    def _candidates(self) -> list[Candidate]:
        """Return how each backend would go on now, the best one first."""
        parts, routed = self._parts, self._routed
        entries = routed.outbox.whole_log()
        plans = Plans(entries, routed.request)
        key = b""
        if self._rules.policy == "prefix":
            key = conversation_key(routed.owner, routed.session, routed.request)
        names = preference(self._rules, self._load, key=key, draw=random.random)
        candidates = []
        for name in names:
            if name in self._silent:
                continue
            model = member_model(routed.model, parts.models[name])
            candidates.append(
                plans.candidate(model, parts.backends[name], parts.verdicts.form_of(model))
            )
        # `fail` is about a backend that fails, and not about a worker that has handed over.
        may_reset = routed.model.on_takeover != "fail" or not self._failures
        return ask_order(candidates, self.asked, writer=writer_of(entries), may_reset=may_reset)

    def _load(self, name: str) -> Load:
        health = self._parts.health
        return Load(health.busy(name), health.first_token_s(name))

    async def _ask(self, candidates: Sequence[Candidate], *, is_last_resort: bool) -> Call | None:
        """Ask the first backend that is healthy and has a free slot; None: no backend may be asked.

        Args:
            is_last_resort: if all backends are cooling down, ask one of them.

        Raises:
            BackendError: there are backends, and none has a free slot.
        """
        health, generation_id = self._parts.health, self._routed.generation_id
        for may_go in (health.admit, health.take_slot) if is_last_resort else (health.admit,):
            for candidate in candidates:
                with suppress(Unavailable):  # the renewal stops the run if Redis stays away
                    if await may_go(candidate.name, generation_id):
                        return self._start(candidate)
        if candidates and is_last_resort and not self._failures:
            raise BackendError("upstream_error", "no backend has a free slot", is_outage=True)
        return None

    async def _ask_second(self) -> Call | None:
        candidates = [candidate for candidate in self._candidates() if not candidate.has_part]
        call = await self._ask(candidates, is_last_resort=False)
        if call is not None:
            self._parts.counters["hedges"] += 1
        return call

    def _start(self, candidate: Candidate) -> Call:
        parts, routed = self._parts, self._routed
        self.asked[candidate.name] += 1
        backend = parts.backends[candidate.name]
        request = self._request_for(candidate.name)
        given = 0 if backend.counts_whole else routed.usage.completion_tokens
        asked = Asked(
            backend=backend,
            request=request,
            given=given,
            plan=candidate.plan,
            form=candidate.form,
            seed=routed.generation_id,
            late=self.push_late,
            log=routed.outbox.log,
            stages=routed.stages(candidate.name, routed.outbox.log),
        )
        note = parts.health.start(candidate.name, routed.generation_id, keeps_slot=False)
        return Call(candidate, asked, note, partial(self._count, candidate.name))

    def _request_for(self, name: str) -> Request:
        """Return the request without the members that only other backends get (`forward`)."""
        request, rules = self._routed.request, self._parts.models[name].rules
        others = {*self._routed.model.rules.forward} - {*rules.forward}
        if not others & request.params.keys():
            return request
        params = {key: value for key, value in request.params.items() if key not in others}
        return msgspec.structs.replace(request, params=params)

    # Noting

    def _count(self, name: str, what: str) -> None:
        if what == "asked":
            self._parts.counters["backend_calls"] += 1
        else:
            self._parts.metrics.asked(self._routed.model.name, name, what)

    def _begin(self, call: Call, items: Items) -> Items:
        """Return the items, with `start` before them unless this backend wrote the items before.

        What a stage says before the backend is asked, such as the answer of a cache, gets a `start`
        without a backend.
        """
        if self._speaker == (call, call.is_asked):
            return items
        self._speaker = call, call.is_asked
        routed = self._routed
        routed.usage.begin_request(counts_whole=call.backend.counts_whole)
        if not call.is_asked:
            lacks_start = routed.outbox.lacks_start
            return (
                [Start(routed.outbox.attempt, routed.model.name), *items] if lacks_start else items
            )
        if call.name == self.writer:
            return items
        entries = routed.outbox.whole_log()
        before = writer_of(entries)
        if before not in ("", call.name) and before in self._parts.backends:
            # An answer that the other server makes in the background would be paid for twice.
            self._parts.spawn(stop_upstream(self._parts.backends[before], list(entries)))
        if self.writer:
            self._parts.counters["continued_elsewhere"] += 1
        self.writer = call.name
        return [Start(routed.outbox.attempt, routed.model.name, call.name), *items]

    def _note_failure(self, error: BackendError) -> None:
        """Note that a backend has failed.

        Raises:
            BackendError: no other backend may be asked.
        """
        assert self._call is not None
        if self._call.is_finished or not others_may_answer(error):
            raise error
        self._failures.append(error)
        if error.code == "upstream_timeout":
            self._silent.add(self._call.name)
        self._parts.counters["backend_failures"] += 1
        log.warning(
            "backend of a route failed",
            extra={
                "generation_id": self._routed.generation_id,
                "model": self._routed.model.name,
                "backend": self._call.name,
                "code": error.code,
                "reason": error.message,
            },
        )
