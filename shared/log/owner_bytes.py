"""How many bytes each owner keeps in Redis: prompts and logs, counted until they are gone.

Each owner has one record: what each of his generations keeps, until when, and the sum. A node notes
a prompt with its creation, a worker its log while it grows and at its end, whoever deletes it that
it is gone. Invariant: an entry says all that its generation keeps, never a difference, and has a
time at which it goes by itself. So a call may be repeated and a process may die between any two:
what is wrong is wrong for one retention at most. The lines of a batch are not counted: their number
is bounded by the batch's window, and they are kept for a minute.

Here: the calls of shared/redis/scripts/owner_bytes.lua, and `OwnerRoom`, which decides without
asking.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from shared.config.settings import Settings
from shared.errors import RequestError
from shared.redis import keys
from shared.redis.pipeline import Call

GENERATION_BYTES = 2_048  # what Redis needs for one beside prompt and log: hash, stream, indexes
OWNERS_MAX = 10_000  # whom a node remembers; of the others it learns with their next prompt
READ_AGAIN_S = 1.0  # a sum that refuses somebody is no older than this
RETRY_AFTER_S = 10
ENDED_AT = 1.25  # times the bound: then what runs is ended, too

SCRIPT = "owner_bytes"
CHARGE = "owner_charge"  # the same, refused where memory is full, as a create is
_SAME, _DELETED = "", "-"


class GenerationBytes(NamedTuple):
    """What one generation keeps."""

    owner: str
    generation_id: str
    log: int
    request: int


def request_bytes(*parts: bytes | str) -> int:
    """Return what a generation keeps from its creation on, given what its meta holds."""
    return GENERATION_BYTES + sum(
        len(part) if isinstance(part, bytes) else len(part.encode()) for part in parts
    )


def unfinished(kept: GenerationBytes, settings: Settings) -> Call:
    """Return the call that notes a generation that has no end yet.

    Should its end never be noted, the entry goes when even the longest one would be gone.
    """
    s = settings
    longest_s = s.queue_wait_s + s.attempts_max * s.upstream_total_s + s.retention_s
    return _call(kept, str(kept.log), round(longest_s * 1000), round(s.retention_s * 1000))


def ended(kept: GenerationBytes, retention_ms: int) -> Call:
    """Return the call that notes one that ends now: its log goes first, its request later."""
    return _call(kept, str(kept.log), retention_ms, retention_ms)


def over(owner: str, generation_id: str, retention_ms: int) -> Call:
    """Return the same for who does not know how much it keeps."""
    return _call(GenerationBytes(owner, generation_id, 0, 0), _SAME, retention_ms, retention_ms)


def deleted(owner: str, generation_id: str, retention_ms: int) -> Call:
    """Return the call that gives all of it back; what is said of it later counts no more."""
    return _call(GenerationBytes(owner, generation_id, 0, 0), _DELETED, 2 * retention_ms, 0)


def total(owner: str) -> Call:
    """Return the call that only asks."""
    return _keys(owner), [0]


def _call(kept: GenerationBytes, log: str, until_ms: int, outlives_ms: int) -> Call:
    entry = [kept.generation_id, log, kept.request, until_ms, outlives_ms]
    return _keys(kept.owner), [until_ms + outlives_ms, *entry]


def _keys(owner: str) -> tuple[str, str]:
    return keys.owner_bytes(owner), keys.owner_until(owner)


@dataclass(slots=True)
class _Known:
    total: int = 0
    heard_s: float = -READ_AGAIN_S  # when, on the caller's clock
    coming: int = 0  # of prompts that are just being accepted here


class OwnerRoom:
    """What one process knows of the sums: who may be let in.

    Every prompt that is accepted brings the sum back, so nothing is asked before it: of an owner
    who is not known one prompt is let in. Only a refusal needs a fresh sum. Decides, and is given
    the time.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def has(self, owner: str, size: int) -> bool:
        """Whether a prompt of `size` bytes keeps the owner within the bound."""
        known = self._known.get(owner, _Known())
        return known.total + known.coming + size <= self.bytes_max

    def is_old(self, owner: str, now_s: float) -> bool:
        """Whether a refusal has to ask first."""
        known = self._known.get(owner)
        return known is None or now_s - known.heard_s >= READ_AGAIN_S

    def hear(self, owner: str, total: int, now_s: float) -> None:
        """Take in a sum."""
        known = self._entry(owner)
        known.total, known.heard_s = total, now_s

    @contextmanager
    def coming(self, owner: str, size: int) -> Iterator[None]:
        """Count a prompt while it is being accepted."""
        known = self._entry(owner)
        known.coming += size
        try:
            yield
        finally:
            known.coming -= size

    def refusal(self, owner: str, size: int) -> RequestError:
        """Return the error of a prompt of `size` bytes for which there is no room."""
        known = self._entry(owner)
        return RequestError(
            429,
            "owner_full",
            f"this prompt takes {size} bytes, and this owner's prompts and answers take "
            f"{known.total} of the {self.bytes_max} that TAILRACE_OWNER_BYTES_MAX allows: "
            "delete some (DELETE /v1/responses/{id}), or ask again when some have expired",
            retryable=True,
            retry_after_s=RETRY_AFTER_S,
        )

    def _entry(self, owner: str) -> _Known:
        known = self._known.setdefault(owner, _Known())
        self._known.move_to_end(owner)
        while len(self._known) > OWNERS_MAX:
            self._known.popitem(last=False)
        return known
