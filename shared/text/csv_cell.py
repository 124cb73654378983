"""Makes a value safe to show as a cell of a CSV file. Pure."""

from __future__ import annotations

from typing import Any

# A spreadsheet takes a cell that begins so for a formula. Owners choose their names in part.
FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """Return the value of a cell: an apostrophe before a text that looks like a formula.

    None becomes an empty cell. Other values stay as they are.
    """
    if isinstance(value, str) and value.startswith(FORMULA_BEGINNINGS):
        return "'" + value
    return "" if value is None else value
