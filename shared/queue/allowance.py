"""The record of an owner with limits, in Redis: how much the owner may still start, over all nodes.

A node asks the record before it creates a generation (shared/redis/scripts/limit_admit.lua). The
record then counts the generation, with tokens that are estimated: those of the prompt and the
longest answer that the request allows. The end is settled once (limit_settle.lua), by the process
that takes the ended generation off the queue, usually a worker. Then the real tokens of the answer
replace the estimate.

Invariant: an entry is added once and removed once, by the id of its generation. So every call may
be repeated, and a repeated request, or two processes that settle the same end, count nothing
twice. An entry that no process settles expires. Source: docs/operations.md, "Limits of an owner".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from shared.config.limits import OwnerLimits
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.log.events import Counts, End, decode_known
from shared.log.lifetimes import COUNT_SPARE_S, counted_ms
from shared.log.request import Request
from shared.log.tally import LIMITS, count_prompt
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.pipeline import Call

ADMIT, EXTEND, SETTLE = "limit_admit", "limit_extend", "limit_settle"
# The tokens of an answer whose request does not bound them, until its end is known.
ANSWER_TOKENS = 1_024
MARK = "limits"  # the field of meta that says that the end has to be settled
DAY_MS = 86_400_000
_PROMPT, _LINE = "prompt", "line"
_NOT_ACCEPTED = "-"
_counts = msgspec.json.Decoder(Counts)

_CODES = {
    "active": "too_many_active",
    "prompts": "rate_limited",
    "tokens": "rate_limited",
    "day": "quota_exhausted",
}


class Allowance(NamedTuple):
    """The rest of an owner's limits, after a prompt or at its refusal.

    Attributes:
        prompts, tokens: the rest of the limits per minute, which may be used at once.
        prompts_reset_s, tokens_reset_s: until all of it is back, s.
        day_tokens, day_reset_s: of the limit of a day, and until the day ends.
        active: generations that wait or run.
    """

    limits: OwnerLimits
    prompts: int
    prompts_reset_s: float
    tokens: int
    tokens_reset_s: float
    day_tokens: int
    day_reset_s: float
    active: int = 0

    def has_half(self, coming: int) -> bool:
        """Whether at least half of each limit is left, with `coming` further prompts counted."""
        limits = self.limits
        rows = (
            (limits.active_max, limits.active_max - self.active),
            (limits.prompts_per_min, self.prompts),
            (limits.tokens_per_min, self.tokens),
            (limits.tokens_per_day, self.day_tokens),
        )
        return all(2 * (left - coming) >= most for most, left in rows if most)


class OverLimit(RequestError):
    """429: the prompt would exceed a limit of its owner.

    Attributes:
        allowance: the rest of the limits.
        active: ids of generations that count as waiting or running; only of `too_many_active`.
    """

    def __init__(
        self, code: str, message: str, *, retry_after_s: int, allowance: Allowance
    ) -> None:
        # A quota comes back at midnight: no client should wait for it with the request at hand.
        is_retryable = code != "quota_exhausted"
        super().__init__(429, code, message, retryable=is_retryable, retry_after_s=retry_after_s)
        self.allowance = allowance
        self.active: Sequence[str] = ()


def estimated_tokens(request: Request) -> int:
    """Return the tokens that a request may take: of its texts, and of the longest answer."""
    bounds = [request.params.get(name) for name in LIMITS[:2]]
    named = [bound for bound in bounds if type(bound) is int and bound > 0]
    return count_prompt(request) + min(named, default=ANSWER_TOKENS)


def admission(
    owner: str, generation_id: str, tokens: int, limits: OwnerLimits, settings: Settings
) -> Call:
    """Return the call that counts a prompt, or refuses it; `read` reads the reply.

    Args:
        tokens: as `estimated_tokens`.
    """
    numbers = (
        limits.active_max,
        limits.prompts_per_min,
        limits.tokens_per_min,
        limits.tokens_per_day,
    )
    return _keys(owner), [generation_id, _PROMPT, tokens, counted_ms(settings), *numbers]


def line_admission(owner: str, generation_id: str, window_s: float) -> Call:
    """Return the call that counts a line of a batch, which is never refused.

    Args:
        window_s: the line ends within this time, s.
    """
    life_ms = round((window_s + COUNT_SPARE_S) * 1000)
    return _keys(owner), [generation_id, _LINE, 0, life_ms, 0, 0, 0, 0]


def extension(owner: str, generation_id: str, life_ms: int) -> Call:
    """Return the call that lets a generation count for `life_ms` from now, if it still counts."""
    return _keys(owner), [generation_id, life_ms]


def settlement(owner: str, generation_id: str, tokens: int | None) -> Call:
    """Return the call that ends a count.

    Args:
        tokens: of prompt and answer; None: not known, so the estimate counts.
    """
    return _keys(owner), [generation_id, "" if tokens is None else tokens]


def tokens_of(end: bytes | None, spent: bytes | None) -> int | None:
    """Return the tokens of a generation that has ended.

    Args:
        end: the JSON of its end; None or empty: the generation is gone.
        spent: the JSON of the counts that its worker has noted in meta, where the end has none.

    Returns:
        None: not known. An answer that was cancelled without a token, or that no worker began, has
        taken none.
    """
    event = decode_known(end) if end else None
    if not isinstance(event, End):
        return None
    usage = event.usage
    if usage is None and spent:
        try:
            usage = _counts.decode(spent)
        except msgspec.MsgspecError:  # of a newer version
            return None
    if usage is not None:
        return usage.prompt_tokens + usage.completion_tokens
    never_began = event.error is not None and event.error.code == "queue_timeout"
    return 0 if event.status == "cancelled" or never_began else None


def withdrawal(owner: str, generation_id: str) -> Call:
    """Return the call that takes a count back, because the prompt was not accepted after all."""
    return _keys(owner), [generation_id, _NOT_ACCEPTED]


def read(reply: Sequence[Any], limits: OwnerLimits) -> Allowance:
    """Return the rest of the limits, from the reply to `admission`.

    Raises:
        OverLimit: the prompt was refused.
    """
    numbers = [int(value) for value in reply[1:9]]
    allowance = Allowance(
        limits, numbers[1], numbers[2] / 1000, numbers[3], numbers[4] / 1000,
        numbers[5], numbers[6] / 1000, numbers[7],
    )  # fmt: skip
    reason = reply[0].decode()
    if not reason:
        return allowance
    error = OverLimit(
        _CODES[reason],
        _message(reason, limits),
        retry_after_s=max(1, math.ceil(numbers[0] / 1000)),
        allowance=allowance,
    )
    error.active = [value.decode() for value in reply[9:]]
    raise error


async def used_today(redis: Client, owner: str) -> int:
    """Return the tokens that count in the owner's present day (UTC).

    Raises:
        Unavailable: Redis did not answer in time.
    """
    now_ms = await clock_ms(redis)
    with translated():
        day, used = await redis.hmget(keys.owner_limits(owner), ["day", "used"])  # type: ignore[misc]
    return int(used) if day is not None and int(day) == now_ms // DAY_MS else 0


def _message(reason: str, limits: OwnerLimits) -> str:
    if reason == "active":
        return (
            f"{limits.active_max} generations of this owner wait or run already, and no more may: "
            "cancel one, or ask again when one has ended"
        )
    if reason == "day":
        return (
            f"the {limits.tokens_per_day} tokens of this owner for today are used up: ask again "
            "tomorrow (UTC), or ask the operator for more"
        )
    number, what = {
        "prompts": (limits.prompts_per_min, "prompts"),
        "tokens": (limits.tokens_per_min, "tokens"),
    }[reason]
    return (
        f"this owner may use {number} {what} a minute: ask again after the seconds of Retry-After"
    )


def _keys(owner: str) -> tuple[str, str]:
    return keys.owner_limits(owner), keys.owner_active(owner)
