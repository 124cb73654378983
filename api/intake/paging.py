"""The numbers in a listing's query, as several listings have them."""

from __future__ import annotations

from collections.abc import Mapping

from api.intake.body import wrong


def read_number(name: str, value: str, *, digits_max: int = 18) -> int:
    """Return a whole number from 0.

    Raises:
        RequestError: 422, also for one of more than `digits_max` digits.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= digits_max):
        raise wrong(f"{name} must be a whole number from 0")
    return int(value)


def read_limit(query: Mapping[str, str], default: int, most: int) -> int:
    """Return how many are wanted; an empty `limit` says nothing.

    Raises:
        RequestError: 422.
    """
    limit = read_number("limit", query.get("limit") or str(default))
    if not 1 <= limit <= most:
        raise wrong(f"limit must be from 1 to {most}")
    return limit
