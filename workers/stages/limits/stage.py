"""The stage `limits`: ends an answer that has too many tokens or characters, or takes too long.

The limit of tokens is also sent to the model, so most servers end the answer by themselves. Tokens
are counted as for the usage (shared/log/tally.py).
"""

from __future__ import annotations

import math

import msgspec

from shared.config.models import Model
from shared.config.stages.spec import StageTable
from shared.log.events import AnyEvent, Event, Reasoning, Reset, Token, ToolCall
from shared.log.request import Request
from shared.log.tally import LIMITS, Tally
from workers.backends.contract import Finish
from workers.stages.contract import Answer, AnswerStage, Items, Preparation, Services

LENGTH = Finish("length", is_cut=True)


class Limits:
    """The limits of one model."""

    def __init__(self, table: StageTable) -> None:
        self.tokens: int | None = table.options.get("max_tokens")
        self.characters: int | None = table.options.get("max_characters")
        self.seconds: float | None = table.options.get("max_seconds")

    def open(self, answer: Answer) -> AnswerLimits:
        """Return the limits of one attempt."""
        return AnswerLimits(self, answer.held_s)


class AnswerLimits(AnswerStage):
    """The limits of one attempt at an answer."""

    def __init__(self, limits: Limits, held_s: float) -> None:
        self._limits = limits
        self._tally = Tally()
        self._characters = 0
        self._tokens_max = math.inf if limits.tokens is None else limits.tokens
        self._characters_max = math.inf if limits.characters is None else limits.characters
        if limits.seconds is not None:
            self.ends_in_s = max(limits.seconds - held_s, 0.0)

    def prepare(self, request: Request) -> Preparation | None:
        """Tell the model the limit of tokens."""
        return None if self._limits.tokens is None else self._bound(request, self._limits.tokens)

    async def _bound(self, request: Request, tokens: int) -> Preparation:
        params = dict(request.params)
        given = [name for name in LIMITS[:2] if type(params.get(name)) is int]
        for name in given or LIMITS[:1]:
            params[name] = min(params.get(name, tokens), tokens)
        if type(least := params.get("min_tokens")) is int:
            params["min_tokens"] = min(least, tokens)
        yield msgspec.structs.replace(request, params=params)

    def fold(self, event: AnyEvent) -> None:
        """See `AnswerStage.fold`."""
        self._tally.add(event)
        if isinstance(event, Token):
            self._characters += len(event.text)
        elif isinstance(event, Reset):
            self._characters = 0

    def feed(self, items: Items) -> Items:
        """See `AnswerStage.feed`."""
        # One token of the answer within the limits: the usual case, with as few calls as possible.
        if len(items) == 1 and type(item := items[0]) is Token and (text := item.text):
            characters = self._characters + len(text)
            if characters <= self._characters_max:
                if self._tally.add_text(text) >= self._tokens_max:
                    return [LENGTH]
                self._characters = characters
                return items
        return self._feed(items)

    def _feed(self, items: Items) -> Items:
        for at, item in enumerate(items):
            if not isinstance(item, Event):
                continue
            is_text = isinstance(item, Token | Reasoning | ToolCall)
            if is_text and self._tally.completion_tokens >= self._tokens_max:
                return [*items[:at], LENGTH]
            if self._limits.characters is not None and isinstance(item, Token):
                left = self._limits.characters - self._characters
                if len(item.text) > left:
                    kept = [msgspec.structs.replace(item, text=item.text[:left])] if left else []
                    return [*items[:at], *kept, LENGTH]
            self.fold(item)
        return items


def build(table: StageTable, model: Model, services: Services) -> Limits:
    """Build the limits of a model: see workers/stages/kinds.py."""
    return Limits(table)
