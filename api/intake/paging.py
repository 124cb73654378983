"""Reads the numbers in the query of a listing. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from api.intake.body import invalid_request


def read_number(name: str, value: str, *, digits_max: int = 18) -> int:
    """Return `value` as an integer of 0 or more.

    Args:
        name: of the query parameter, for the error.

    Raises:
        RequestError: 422, not an integer, negative, or longer than `digits_max` digits.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= digits_max):
        raise invalid_request(f"{name} must be a whole number from 0")
    return int(value)


def read_limit(query: Mapping[str, str], default: int, limit_max: int) -> int:
    """Return the parameter `limit`: how many items a page holds; `default` if absent or empty.

    Raises:
        RequestError: 422, not an integer from 1 to `limit_max`.
    """
    limit = read_number("limit", query.get("limit") or str(default))
    if not 1 <= limit <= limit_max:
        raise invalid_request(f"limit must be from 1 to {limit_max}")
    return limit
