"""Decodes a line or message of a server that must be a JSON object. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from shared.errors import BackendError
from shared.log.extra import clean
from shared.text.json_values import VALUES_MAX, has_too_many_values

CHECKED_BYTES_MIN = 4_096  # shorter data cannot have too many values


def read_object(data: bytes, *, keeps_halves: bool = False) -> dict[str, Any]:
    """Return the object, with values that every JSON decoder can read (shared/log/extra.py).

    Args:
        keeps_halves: the caller joins lone halves of characters (`HalfPairs`) and cleans the rest.

    Raises:
        BackendError: the data is no JSON object, or has too many values.
    """
    try:
        if not data.isascii():
            data.decode()  # a clear error
        if len(data) > CHECKED_BYTES_MIN and has_too_many_values(data):
            message = f"the backend sent a line of more than {VALUES_MAX} values"
            raise BackendError("upstream_error", message, retryable=False)
        value = _decode(data, keeps_halves=keeps_halves)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise BackendError("upstream_error", f"the backend sent broken data: {exc}") from exc
    if not isinstance(value, dict):
        raise BackendError("upstream_error", "the backend sent broken data: no JSON object")
    return value


def _decode(data: bytes, *, keeps_halves: bool) -> Any:
    try:
        return msgspec.json.decode(data)
    except ValueError:
        # Python's decoder is slower, but also reads NaN, Infinity and lone halves of pairs.
        value = json.loads(data.decode())
        return value if keeps_halves else clean(value)[0]
