"""The stage `cache`: answers a request that was answered before, without asking the model.

It records what leaves the whole list of stages, so nothing that a filter takes out is ever stored.
A replayed answer passes through all stages again. Trouble with Redis is a miss: it fails no answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import Any

import msgspec

from shared.cache.answers import AnswerCache, CacheRules, Stored, encode_stored, key_for
from shared.config.models import Model
from shared.config.stages.cache import ANSWERS_MAX, BYTES_MAX, TTL_S
from shared.config.stages.spec import StageTable
from shared.errors import Unavailable
from shared.log.events import (
    AnyEvent,
    End,
    Progress,
    Reasoning,
    Reset,
    Start,
    Token,
    ToolCall,
    Upstream,
    Usage,
)
from shared.log.request import Request
from workers.backends.contract import Finish
from workers.stages.contract import Answer, AnswerStage, Items, Preparation, Services

UNSTORED = Start | Upstream | Progress | End
REDIS_S = 0.5  # for the look-up, before the model is asked instead
log = logging.getLogger(__name__)


class Cache:
    """The cache of one model."""

    def __init__(self, table: StageTable, model: Model, services: Services) -> None:
        options = table.options
        self.answers = AnswerCache(services.redis)
        self.rules = CacheRules(
            ttl_s=options.get("ttl_s", TTL_S), answers_max=options.get("answers_max", ANSWERS_MAX)
        )
        self.bytes_max: int = options.get("bytes_max", BYTES_MAX)
        self.is_shared: bool = options.get("shared", False)
        # A change of the model's table makes all its stored answers unknown.
        self.model = hashlib.sha256(repr(model).encode()).hexdigest()

    def open(self, answer: Answer) -> AnswerOfCache | None:
        """Return the cache of one attempt; None: the audio of a request is no part of its key."""
        return None if answer.request.audio else AnswerOfCache(self, answer)


class AnswerOfCache(AnswerStage):
    """The cache in one attempt at an answer."""

    records = True

    def __init__(self, cache: Cache, answer: Answer) -> None:
        self._cache = cache
        self._answer = answer
        self._key = ""
        self._events: list[AnyEvent] = []
        self._bytes = 0
        self._finish: Finish | None = None

    def prepare(self, request: Request) -> Preparation:
        """Look for the answer. An attempt that goes on behind an earlier one asks the model."""
        return self._look(request)

    async def _look(self, request: Request) -> Preparation:
        meta = self._answer.meta
        owner = "" if self._cache.is_shared else meta.owner
        model = f"{meta.model} {self._cache.model}"
        self._key = key_for(request, owner=owner, model=model)
        if not self._answer.is_first:
            return
        try:
            async with asyncio.timeout(REDIS_S):
                stored = await self._cache.answers.find(meta.model, self._key)
        except (Unavailable, TimeoutError) as exc:
            log.warning("cache not reached", extra={"model": meta.model, "reason": str(exc)[:200]})
            return
        if stored is not None:
            yield _replayed(stored, meta.generation_id)

    def fold(self, event: AnyEvent) -> None:
        """See `AnswerStage.fold`."""
        self.record([event])

    def record(self, items: Items) -> None:
        """See `AnswerStage.record`."""
        for item in items:
            if isinstance(item, Finish):
                self._finish = item
            elif isinstance(item, Reset):
                self._events.clear()
                self._bytes = 0
            elif not isinstance(item, UNSTORED) and self._bytes <= self._cache.bytes_max:
                self._add(item)

    def _add(self, event: AnyEvent) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(event, Token | Reasoning) and event.extra is None:
            self._bytes += len(event.text)
            if type(last) is type(event) and not last.extra and last.agent == event.agent:
                self._events[-1] = type(event)(last.text + event.text, agent=event.agent)
                return
        else:
            self._bytes += len(msgspec.json.encode(event))
            if isinstance(event, Usage):  # the last counts are valid
                self._events = [each for each in self._events if not isinstance(each, Usage)]
        self._events.append(event)

    async def finished(self) -> None:
        """See `AnswerStage.finished`."""
        finish, meta = self._finish, self._answer.meta
        if finish is None or finish.cached_at or not self._key:
            return
        if finish.is_cut and finish.reason == "length":  # perhaps by the time that it took
            return
        raw = encode_stored(self._events, finish.reason, finish.extra, round(time.time()))
        if len(raw) > self._cache.bytes_max:
            return
        try:
            async with asyncio.timeout(REDIS_S):
                await self._cache.answers.store(
                    meta.model, self._key, raw, self._cache.rules,
                    owner=meta.owner, generation=meta.generation_id,
                )  # fmt: skip
        except (Unavailable, TimeoutError) as exc:
            log.warning("cache not reached", extra={"model": meta.model, "reason": str(exc)[:200]})


def _replayed(stored: Stored, generation_id: str) -> Items:
    """Return the items of a stored answer. Ids of tool calls are new, and counts are marked."""
    items: Items = []
    for event in stored.events:
        if isinstance(event, ToolCall) and event.call_id:
            digest = hashlib.sha256(f"{generation_id} {event.call_id}".encode()).hexdigest()
            event = msgspec.structs.replace(event, call_id=f"call_{digest[:24]}")
        elif isinstance(event, Usage):
            extra: dict[str, Any] = {**(event.extra or {}), "cached": True}
            event = msgspec.structs.replace(event, extra=extra)
        items.append(event)
    return [*items, Finish(stored.reason, extra=stored.extra, cached_at=stored.made_at)]


def build(table: StageTable, model: Model, services: Services) -> Cache:
    """Build the cache of a model: see workers/stages/kinds.py."""
    return Cache(table, model, services)
