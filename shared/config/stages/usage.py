"""The stage `usage`: counts where the server gives none, and prices."""

from __future__ import annotations

from typing import Any

from shared.config.kinds.spec import switch
from shared.config.stages.spec import StageSpec, number
from shared.errors import ConfigurationError

PRICE_MAX = 1_000_000.0  # of a million tokens


def currency(value: Any, where: str) -> str:
    """Check the name of a currency."""
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= 16:
        raise ConfigurationError(f"{where}: must be a name of 1 to 16 characters")
    return value


USAGE = StageSpec(
    name="usage",
    members={
        "estimate": switch,
        "input_price": number(0, PRICE_MAX),
        "cached_input_price": number(0, PRICE_MAX),
        "output_price": number(0, PRICE_MAX),
        "currency": currency,
    },
)
