"""The controls of the demo backend: in the models file, and for one request in `params.demo`.

    tokens_per_s    40 by default; 0 is as fast as possible
    first_token_s   the pause before the first token; default 0.3, or 0 with `tokens_per_s = 0`
    tokens          the length of the answer, up to 200,000; long answers repeat the topics
    seed            the same seed and prompt give the same answer; default: the generation's id
    reasoning_tokens, tool_call (the name of a tool that it calls after the text)
    fail_at         fail after this many tokens of the answer
    fail_always     … and also at the start of every later attempt
    fail_code, fail_retryable
    fail_upstream   the error of a model server: message, status, code, type, param

A backend does not know which attempt it serves; it knows only the prefix. So `fail_at = k` fails an
attempt whose prefix is shorter than k. A model with `on_takeover = "continue"` therefore fails once
and continues at token k. A model with `restart`, or with k = 0, starts without a prefix and fails
in every attempt, until its attempts are exhausted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from shared.errors import BackendError, ConfigurationError, Refusal
from workers.backends.token_limits import token_limit

TOKENS_MAX = 200_000
Count = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
Positive = Annotated[int, Meta(ge=1)]


class DemoControls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The controls of one answer; the module docstring explains each of them."""

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
    fail_upstream: Refusal | None = None
    max_tokens: Positive | None = None  # from `params` itself, as for every other backend

    def fails_after(self, prefix_tokens: int) -> int | None:
        """Return after how many tokens of the answer this attempt fails; None: it does not fail.

        Args:
            prefix_tokens: the number of tokens in the prefix that the attempt continues.
        """
        if self.fail_at is None:
            return None
        if prefix_tokens < self.fail_at or prefix_tokens == 0 or self.fail_always:
            return max(prefix_tokens, self.fail_at)
        return None


def parse_options(options: Mapping[str, Any], where: str) -> DemoControls:
    """Check the options of a model in the models file.

    Args:
        where: names the place of the options in error messages.

    Raises:
        ConfigurationError: an unknown name, or a value out of its bounds.
    """
    try:
        return _convert(dict(options))
    except ValueError as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc


def apply_params(options: DemoControls, params: Mapping[str, Any]) -> DemoControls:
    """Return the model's options, overridden by the request's `params`.

    Raises:
        BackendError: an invalid value in `params`; not retryable.
    """
    requested = params.get("demo", {})
    if not isinstance(requested, dict):
        raise BackendError("upstream_refused", "params.demo: must be an object", retryable=False)
    merged = msgspec.structs.asdict(options) | requested
    if params.get("seed") is not None:
        merged["seed"] = params["seed"]
    merged["max_tokens"] = token_limit(params, merged["max_tokens"])
    try:
        return _convert(merged)
    except ValueError as exc:
        raise BackendError("upstream_refused", f"params: {exc}", retryable=False) from exc


def _convert(values: dict[str, Any]) -> DemoControls:
    controls = msgspec.convert(values, DemoControls)
    if not math.isfinite(controls.tokens_per_s):
        raise ValueError("tokens_per_s must be a number")
    refusal = controls.fail_upstream
    if refusal is not None and not 400 <= (refusal.status or 400) < 600:
        raise ValueError("fail_upstream.status must be from 400 to 599")
    return controls
