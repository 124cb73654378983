"""The headers with the rest of an owner's limits, on answers to accepted and refused prompts.

`x-ratelimit-*` are OpenAI's, which SDKs and gateways read. `RateLimit` and `RateLimit-Policy` are
those of the IETF's draft-ietf-httpapi-ratelimit-headers-11: structured fields (RFC 9651), in which
`q` is the quota, `w` its window in seconds, `r` what remains and `t` the seconds until all of it is
back. The draft's registry has no unit for tokens, so `qu="tokens"` is ours. Pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from starlette.types import Message, Scope

from api.transport.extensions import ALLOWANCE
from shared.queue.allowance import Allowance

MINUTE_S, DAY_S = 60, 86_400
EXPOSED = (
    "RateLimit",
    "RateLimit-Policy",
    *(
        f"x-ratelimit-{part}-{what}"
        for what in ("requests", "tokens")
        for part in ("limit", "remaining", "reset")
    ),
)


def add_limit_headers(scope: Scope, message: Message) -> None:
    """Add the headers to the first message of an answer, if its prompt was counted or refused."""
    allowance: Allowance | None = scope.get(ALLOWANCE)
    if allowance is not None and message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], *limit_headers(allowance)]


def limit_headers(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    """Return the headers; none for a limit that the owner does not have."""
    limits = allowance.limits
    prompts = _Quota(
        "prompts", limits.prompts_per_min, allowance.prompts, allowance.prompts_reset_s
    )
    tokens = _Quota(
        "tokens", limits.tokens_per_min, allowance.tokens, allowance.tokens_reset_s, unit="tokens"
    )
    day = _Quota(
        "day", limits.tokens_per_day, allowance.day_tokens, allowance.day_reset_s,
        window_s=DAY_S, unit="tokens",
    )  # fmt: skip
    quotas = [quota for quota in (prompts, tokens, day) if quota.most]
    found = []
    if quotas:
        found = [
            (b"ratelimit-policy", ", ".join(quota.policy for quota in quotas).encode()),
            (b"ratelimit", ", ".join(quota.state for quota in quotas).encode()),
        ]
    if prompts.most:
        found += _openai_headers("requests", prompts)
    # OpenAI's headers have one limit of tokens. Clients pace themselves by that of a minute.
    if tokens.most or day.most:
        found += _openai_headers("tokens", tokens if tokens.most else day)
    return found


class _Quota(NamedTuple):
    """One limit: the whole, the rest, and the seconds until the whole is available again."""

    name: str
    most: int
    left: int
    reset_s: float
    window_s: int = MINUTE_S
    unit: str = ""

    @property
    def policy(self) -> str:
        unit = f';qu="{self.unit}"' if self.unit else ""
        return f'"{self.name}";q={self.most};w={self.window_s}{unit}'

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.left};t={math.ceil(self.reset_s)}'


def _openai_headers(what: str, quota: _Quota) -> list[tuple[bytes, bytes]]:
    return [
        (f"x-ratelimit-limit-{what}".encode(), b"%d" % quota.most),
        (f"x-ratelimit-remaining-{what}".encode(), b"%d" % quota.left),
        (f"x-ratelimit-reset-{what}".encode(), duration(quota.reset_s).encode()),
    ]


def duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: `120ms`, `7.5s`, `6m0s`, `2h3m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 100) / 100:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest}s"
