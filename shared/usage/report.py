"""Groups the rows of owners for a report of usage. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from shared.usage.figures import Figures
from shared.usage.ledger import Row

GROUPS = ("owner", "model", "day")
COLUMNS = (
    *GROUPS, "prompts", "input_tokens", "output_tokens", "cached_tokens", "estimated_tokens",
    "seconds",
)  # fmt: skip

_Key = tuple[str | None, str | None, str | None]


class Report:
    """Sums of usage by some of owner, model and day.

    Args:
        groups: members of `GROUPS`. The report has one row for each combination of values.
    """

    def __init__(self, groups: Iterable[str]) -> None:
        self._groups = frozenset(groups)
        self._sums: dict[_Key, Figures] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def add(self, owner: str, rows: Iterable[Row]) -> None:
        """Add the rows of an owner."""
        for row in rows:
            values = (owner, row.model, row.day.isoformat())
            pairs = zip(GROUPS, values, strict=True)
            key: Any = tuple(value if name in self._groups else None for name, value in pairs)
            self._sums[key] = self._sums.get(key, Figures()).plus(row.figures)

    def data(self) -> list[dict[str, Any]]:
        """Return the members of each row, ordered by owner, model and day."""
        ordered = sorted(self._sums, key=lambda key: tuple(part or "" for part in key))
        return [dict(zip(COLUMNS, self._values(key), strict=True)) for key in ordered]

    def _values(self, key: _Key) -> Sequence[Any]:
        figures = self._sums[key]
        return (*key, *figures[:5], round(figures.held_ms / 1000, 3))
