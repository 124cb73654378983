"""What the demo backend can be told, in the models file and per request in `params.demo`.

    tokens_per_s    40 by default; 0 is as fast as possible
    first_token_s   the pause before the first token; default 0.3, or 0 with `tokens_per_s = 0`
    tokens          the length of the answer, up to 200,000; it goes round its topics
    seed            the same seed and prompt give the same answer; default: the generation's id
    reasoning_tokens, tool_call (the name of a tool that it calls after the text)
    fail_at         fail once so many tokens of the answer stand
    fail_always     … and at the start of every later attempt, too
    fail_code, fail_retryable

A backend does not know which attempt it serves; it knows how much of the answer stands. So
`fail_at = k` fails an attempt whose prefix is shorter than k. A model with `on_takeover =
"continue"` therefore fails once and goes on from token k; one with `restart`, or with k = 0,
begins from nothing and fails every time, until its attempts are exhausted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.errors import BackendError, ConfigurationError

TOKENS_MAX = 200_000
Count = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Positive = Annotated[int, Meta(ge=1)]


class Controls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    seed: int | str | None = None
    tokens_per_s: Annotated[float, Meta(ge=0)] = 40.0
    first_token_s: Annotated[float, Meta(ge=0, le=3_600)] | None = None
    tokens: Count | None = None
    reasoning_tokens: Count = 0
    tool_call: Annotated[str, Meta(max_length=64)] = ""
    fail_at: Count | None = None
    fail_always: bool = False
    fail_code: Annotated[str, Meta(pattern="^[a-z_]{1,64}$")] = "upstream_error"
    fail_retryable: bool = True
    max_tokens: Positive | None = None  # from `params` itself, as with every other backend

    def fails_after(self, said: int) -> int | None:
        """Return how many tokens stand when this attempt fails, or None if it does not.

        Args:
            said: the tokens of the prefix that it goes on from.
        """
        if self.fail_at is None:
            return None
        if said < self.fail_at or said == 0 or self.fail_always:
            return max(said, self.fail_at)
        return None


def parse_options(options: Mapping[str, Any], where: str) -> Controls:
    """Check what the models file says.

    Raises:
        ConfigurationError: an unknown name, or a value out of its bounds.
    """
    try:
        return _convert(dict(options))
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc


def with_params(options: Controls, params: Mapping[str, Any]) -> Controls:
    """Lay what the request says over the model's options.

    Raises:
        BackendError: the request is wrong; not retryable.
    """
    told = params.get("demo", {})
    if not isinstance(told, dict):
        raise BackendError("upstream_refused", "params.demo: must be an object", retryable=False)
    merged = msgspec.structs.asdict(options) | told
    if params.get("seed") is not None:
        merged["seed"] = params["seed"]
    limits = (params.get("max_completion_tokens"), params.get("max_tokens"))
    merged["max_tokens"] = next((n for n in limits if n is not None), merged["max_tokens"])
    try:
        return _convert(merged)
    except ValueError as exc:
        raise BackendError("upstream_refused", f"params: {exc}", retryable=False) from exc


def _convert(values: dict[str, Any]) -> Controls:
    controls = msgspec.convert(values, Controls)
    if not math.isfinite(controls.tokens_per_s):
        raise ValueError("tokens_per_s must be a number")
    return controls
