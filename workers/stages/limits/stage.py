"""The stage `limits`: ends an answer that has too many tokens or characters, or takes too long.

The limit of tokens is also sent to the model, so most servers end the answer by themselves. Tokens
are counted as for the usage (shared/log/tally.py).
"""

from __future__ import annotations

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
        for at, item in enumerate(items):
            if not isinstance(item, Event):
                continue
            is_text = isinstance(item, Token | Reasoning | ToolCall)
            if is_text and self._limits.tokens is not None:
                if self._tally.completion_tokens >= self._limits.tokens:
                    return [*items[:at], LENGTH]
            most = self._limits.characters
            if most is not None and isinstance(item, Token):
                left = most - self._characters
                if len(item.text) > left:
                    kept = [msgspec.structs.replace(item, text=item.text[:left])] if left else []
                    return [*items[:at], *kept, LENGTH]
            self.fold(item)
        return items


def build(table: StageTable, model: Model, services: Services) -> Limits:
    """Build the limits of a model: see workers/stages/kinds.py."""
    return Limits(table)
