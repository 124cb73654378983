"""The types of official SDKs, as validators."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter


@cache
def adapter_of(kind: Any) -> TypeAdapter[Any]:
    """Return the validator of a type. To build one takes up to 100 ms of CPU time."""
    return TypeAdapter(kind)
