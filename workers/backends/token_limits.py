"""Which member of a request limits the tokens of the answer. Pure.

`max_completion_tokens` counts before `max_tokens`, the older name. A local model and the limits of
owners take the smaller of both: workers/local_model/sampling.py, shared/queue/allowance.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOKEN_LIMITS = ("max_completion_tokens", "max_tokens")


def token_limits(params: Mapping[str, Any]) -> list[Any]:
    """Return the limits that a client sent, unchecked; the first one counts."""
    return [params[name] for name in TOKEN_LIMITS if params.get(name) is not None]


def token_limit(params: Mapping[str, Any], default: Any = None) -> Any:
    """Return the limit that counts, unchecked; `default`: the client sent none."""
    return next(iter(token_limits(params)), default)
