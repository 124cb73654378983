"""The tokens of each day of a month, by owner and by model, for the charts of the console. Pure.

Only the names with the most tokens are columns of their own; the others are added up as `other`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import msgspec

NAMES_MAX = 6
OTHER = ""  # the name of the rest: no owner and no model has it


class Column(msgspec.Struct, frozen=True):
    """One owner or model: the tokens of each day, from the first of the month on."""

    name: str
    tokens: list[int]


class UsageDays(msgspec.Struct, frozen=True):
    """The days of a month until today; `month` is `2026-11`."""

    month: str = ""
    owners: list[Column] = []
    models: list[Column] = []


class DaySums:
    """Adds up the usage of a month.

    Args:
        today: the last day that counts.
    """

    def __init__(self, today: date) -> None:
        self._today = today
        self._owners: dict[str, list[int]] = {}
        self._models: dict[str, list[int]] = {}

    def add(self, day: int, owner: str, model: str, tokens: int) -> None:
        """Add the tokens of an owner and a model on a day of the month, unless it is to come."""
        if not 1 <= day <= self._today.day:
            return
        for sums, name in ((self._owners, owner), (self._models, model)):
            sums.setdefault(name, [0] * self._today.day)[day - 1] += tokens

    def columns(self) -> UsageDays:
        """Return the sums so far."""
        month = self._today.isoformat()[:7]
        return UsageDays(month, _columns(self._owners), _columns(self._models))


def _columns(sums: Mapping[str, list[int]]) -> list[Column]:
    most = sorted(sums.items(), key=lambda pair: (-sum(pair[1]), pair[0]))
    shown = [Column(name, tokens) for name, tokens in most[:NAMES_MAX]]
    if rest := most[NAMES_MAX:]:
        shown.append(
            Column(OTHER, [sum(day) for day in zip(*(each for _, each in rest), strict=True)])
        )
    return shown
