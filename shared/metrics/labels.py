"""Bounds the values of a label. Pure.

A server may list any number of models, and each value of a label is a set of time series for ever.
"""

from __future__ import annotations

LABEL_VALUES_MAX = 50
OTHER = "other"


class BoundedLabel:
    """The values of one label: the first `values_max` that come, and `other` for the rest."""

    def __init__(self, values_max: int = LABEL_VALUES_MAX) -> None:
        self._values_max = values_max
        self._known: set[str] = set()

    def of(self, value: str) -> str:
        """Return the label for a value."""
        if value in self._known:
            return value
        if len(self._known) >= self._values_max:
            return OTHER
        self._known.add(value)
        return value
