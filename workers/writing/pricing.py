"""What an answer costs, and counts for answers whose server reports none. Pure.

    cost = input × input_price + cached input × cached_input_price + output × output_price

Prices are of a million tokens. An answer that repeats a stored answer costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from shared.log.events import Counts, Usage
from shared.log.tally import cached_tokens

PLACES = 9  # of a cost, behind the point
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Pricing:
    """The stage `usage` of one model.

    Attributes:
        estimates: an answer without reported counts gets counts.
        input, output: prices; None: no price, and so no cost.
        cached_input: the price of the input that the server had in a cache; None: as `input`.
    """

    estimates: bool = True
    input: float | None = None
    output: float | None = None
    cached_input: float | None = None
    currency: str = "USD"

    def price(self, counts: Counts) -> Counts:
        """Return the counts with their cost in `extra`."""
        return msgspec.structs.replace(counts, extra=self._priced(counts))

    def price_usage(self, usage: Usage) -> Usage:
        """Return the event with the cost in `extra`."""
        return msgspec.structs.replace(usage, extra=self._priced(usage))

    def _priced(self, counts: Counts | Usage) -> dict[str, Any] | None:
        extra = counts.extra
        if self.input is None and self.output is None:
            return extra
        cached = min(cached_tokens(extra or {}), counts.prompt_tokens)
        dear, cheap = self.input or 0.0, self.cached_input
        cost = (
            (counts.prompt_tokens - cached) * dear
            + cached * (dear if cheap is None else cheap)
            + counts.completion_tokens * (self.output or 0.0)
        )
        if extra and extra.get("cached") is True:
            cost = 0.0
        found = {"cost": round(cost / MILLION, PLACES), "currency": self.currency}
        return {**(extra or {}), **found}
