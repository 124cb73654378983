"""The bytes that each owner keeps in Redis: prompts and logs, counted until they are gone.

Each owner has one record: the bytes of each generation, until when they count, and the sum. A node
records a prompt when it creates the generation. A worker records the log while it grows and at its
end. A deletion records that the generation is gone.

Invariant: an entry holds the complete size of its generation, never a difference, and expires by
itself. So a call may be repeated, and a process may die between two calls: an error in the sum
lasts one retention at most. The lines of a batch are not counted: the window of the batch bounds
their number, and they are kept for a minute.

This module builds the calls of shared/redis/scripts/owner_bytes.lua. `OwnerRoom` decides without
asking Redis.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.config.settings import Settings
from shared.errors import RequestError, Unavailable
from shared.log.lifetimes import named_ms
from shared.redis import keys
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts

GENERATION_BYTES = 2_048  # Redis's overhead of one generation: hash, stream, indexes
OWNERS_MAX = 10_000  # whose sums a process remembers; the next prompt returns any other sum
READ_AGAIN_S = 1.0  # the greatest age of a sum that refuses a prompt
OWNER_RETRY_AFTER_S = 10
ENDED_AT = 1.25  # times the bound: above this, running generations of the owner end, too
# Growth of a log between two counts: each running answer may have this many uncounted bytes.
OWNER_COUNT_STEP_BYTES = 65_536

SCRIPT = "owner_bytes"
CHARGE = "owner_charge"  # the same script, but refused like `create` when memory is full
_SAME, _DELETED = "", "-"


class GenerationBytes(NamedTuple):
    """The bytes of one generation: of its log, and of its request."""

    owner: str
    generation_id: str
    log: int
    request: int


def request_bytes(*parts: bytes | bytearray | str) -> int:
    """Return the bytes of a new generation, given the large fields of its meta."""
    return GENERATION_BYTES + sum(
        len(part.encode()) if isinstance(part, str) else len(part) for part in parts
    )


def unfinished(kept: GenerationBytes, settings: Settings) -> Call:
    """Return the call that records an unfinished generation.

    If its end is never recorded, the entry expires when the longest possible generation would.
    """
    retention_ms = round(settings.retention_s * 1000)
    return _call(kept, str(kept.log), named_ms(settings), retention_ms)


def extended(owner: str, generation_id: str, settings: Settings, silence_s: float) -> Call:
    """Return the call that lets an unfinished generation count longer; its sizes stay."""
    kept, retention_ms = GenerationBytes(owner, generation_id, 0, 0), settings.retention_s * 1000
    return _call(kept, _SAME, named_ms(settings, silence_s), round(retention_ms))


def ended(kept: GenerationBytes, retention_ms: int) -> Call:
    """Return the call that records an end. The log expires first, the request later."""
    return _call(kept, str(kept.log), retention_ms, retention_ms)


def ended_unsized(owner: str, generation_id: str, retention_ms: int) -> Call:
    """Return the call that records an end without a size: the recorded size stays."""
    return _call(GenerationBytes(owner, generation_id, 0, 0), _SAME, retention_ms, retention_ms)


def deleted(owner: str, generation_id: str, retention_ms: int) -> Call:
    """Return the call that removes a generation; later records of it do not count."""
    return _call(GenerationBytes(owner, generation_id, 0, 0), _DELETED, 2 * retention_ms, 0)


async def run_charged(
    scripts: Scripts, calls: Sequence[tuple[str, Call]], charge: Call | None
) -> tuple[list[Any], int | None]:
    """Run calls and a charge in one round trip.

    On a cluster the charge alone may be refused, because the owner's record has a shard of its own.

    Returns:
        the replies, and the bytes of all generations of the owner; None: not known.

    Raises:
        Unavailable: Redis did not answer in time, or refused; some calls may have run.
    """
    charges = [] if charge is None else [(CHARGE, charge)]
    replies = await scripts.run_mixed([*calls, *charges])
    needed = replies[: len(calls)] if scripts.is_sharded else replies
    for reply in needed:
        if isinstance(reply, Exception):
            raise Unavailable(f"Redis refuses: {reply}") from reply
    totals = [int(reply) for reply in replies[len(calls) :] if not isinstance(reply, Exception)]
    return replies[: len(calls)], totals[0] if totals else None


def total(owner: str) -> Call:
    """Return the call that only reads the sum."""
    return _keys(owner), [0]


def far_past_message(total_bytes: int, settings: Settings) -> str:
    """Return the message of `owner_full` for a running answer."""
    return (
        f"this owner's prompts and answers take {total_bytes} bytes, and "
        f"{settings.owner_bytes_max} may be kept: delete some, or wait until they expire"
    )


def _call(kept: GenerationBytes, log: str, until_ms: int, outlives_ms: int) -> Call:
    entry = [kept.generation_id, log, kept.request, until_ms, outlives_ms]
    return _keys(kept.owner), [until_ms + outlives_ms, *entry]


def _keys(owner: str) -> tuple[str, str]:
    return keys.owner_bytes(owner), keys.owner_until(owner)


@dataclass(slots=True)
class _OwnerSum:
    total: int = 0  # bytes, as Redis last returned it
    read_at_s: float = -READ_AGAIN_S  # when, on the caller's clock
    coming: int = 0  # bytes of prompts that this process is accepting now


class OwnerRoom:
    """Decides whether an owner may store another prompt, from the sums that this process knows.

    Each accepted prompt returns the new sum, so a node does not ask before it: the first prompt of
    an unknown owner is accepted. Only a refusal needs a fresh sum. Does no I/O; the caller gives
    the time.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._sums: OrderedDict[str, _OwnerSum] = OrderedDict()

    def has(self, owner: str, size: int) -> bool:
        """Whether a prompt of `size` bytes keeps the owner within the bound."""
        entry = self._sums.get(owner, _OwnerSum())
        return entry.total + entry.coming + size <= self.bytes_max

    def is_old(self, owner: str, now_s: float) -> bool:
        """Whether the sum is too old for a refusal."""
        entry = self._sums.get(owner)
        return entry is None or now_s - entry.read_at_s >= READ_AGAIN_S

    def hear(self, owner: str, total: int, now_s: float) -> None:
        """Remember a sum that Redis returned."""
        entry = self._entry(owner)
        entry.total, entry.read_at_s = total, now_s

    @contextmanager
    def coming(self, owner: str, size: int) -> Iterator[None]:
        """Count a prompt of `size` bytes while it is being accepted."""
        entry = self._entry(owner)
        entry.coming += size
        try:
            yield
        finally:
            entry.coming -= size

    def refusal(self, owner: str, size: int) -> RequestError:
        """Return the error for a prompt of `size` bytes beyond the bound."""
        entry = self._entry(owner)
        return RequestError(
            429,
            "owner_full",
            f"this prompt takes {size} bytes, and this owner's prompts and answers take "
            f"{entry.total} of the {self.bytes_max} that TAILRACE_OWNER_BYTES_MAX allows: "
            "delete some (DELETE /v1/responses/{id}), or ask again when some have expired",
            retryable=True,
            retry_after_s=OWNER_RETRY_AFTER_S,
        )

    def _entry(self, owner: str) -> _OwnerSum:
        entry = self._sums.setdefault(owner, _OwnerSum())
        self._sums.move_to_end(owner)
        while len(self._sums) > OWNERS_MAX:
            self._sums.popitem(last=False)
        return entry
