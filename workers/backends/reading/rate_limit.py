"""Reads what the answer of a vendor says about its rate limits. Pure.

    x-ratelimit-remaining-requests: 0             OpenAI, Groq, Azure and others
    x-ratelimit-reset-requests: 6m0s              … a duration, or seconds
    x-ratelimit-remaining: 0                      OpenRouter
    x-ratelimit-reset: 1785000000000              … Unix time, in s or ms
    anthropic-ratelimit-requests-remaining: 0     Anthropic; also input-tokens, output-tokens, …
    anthropic-ratelimit-requests-reset: 2026-11-29T06:00:00Z

A header that cannot be read counts as absent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

OPENAI, ANTHROPIC = "x-ratelimit-", "anthropic-ratelimit-"
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = r"(\d+(?:\.\d+)?)(ms|[dhms])"
_DURATION = re.compile(f"(?:{_PART})+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UNIX_S, _UNIX_MS = 1e9, 1e12  # a larger number is a time and not a duration
RESET_S_MAX = 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The rate limits in the headers of one answer.

    Attributes:
        left: what is left, by the name of the limit: `requests`, `tokens`, `input-tokens`, …
        wait_s: until the reset of those with nothing left; 0: all have something left.
    """

    left: Mapping[str, int]
    wait_s: float = 0.0


def read_rate_limit(headers: Mapping[str, str], now_s: float) -> RateLimit | None:
    """Return the rate limits; None: the headers name none.

    Args:
        headers: with names in lower case.
        now_s: Unix time.
    """
    left: dict[str, int] = {}
    wait_s = 0.0
    for header, value in headers.items():
        named = _limit_of(header)
        if named is None or not _NUMBER.fullmatch(value):
            continue
        name, reset = named
        left[name] = int(float(value))
        if left[name] == 0:
            wait_s = max(wait_s, reset_s(headers.get(reset, ""), now_s))
    return RateLimit(left, wait_s) if left else None


def _limit_of(header: str) -> tuple[str, str] | None:
    """Return the name of the limit and the header of its reset; None: another header."""
    if header.startswith(OPENAI + "remaining"):
        name = header.removeprefix(OPENAI + "remaining").removeprefix("-")
        return name or "requests", header.replace("remaining", "reset", 1)
    if header.startswith(ANTHROPIC) and header.endswith("-remaining"):
        name = header.removeprefix(ANTHROPIC).removesuffix("-remaining")
        return name, f"{ANTHROPIC}{name}-reset"
    return None


def reset_s(value: str, now_s: float) -> float:
    """Return the seconds until a reset; 0 if the value cannot be read or is in the past."""
    value = value.strip()
    found = 0.0
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number >= _UNIX_MS:
            found = number / 1000 - now_s
        else:
            found = number - now_s if number >= _UNIX_S else number
    elif _DURATION.fullmatch(value):
        found = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, value))
    else:
        try:
            found = datetime.fromisoformat(value).timestamp() - now_s
        except (ValueError, OverflowError, OSError):
            return 0.0
    return found if 0.0 < found <= RESET_S_MAX else 0.0
