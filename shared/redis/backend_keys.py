"""Every key about backends in Redis; shared/redis/keys.py has all others.

tr:{backends}:breakers  hash  backend -> its breaker, JSON
tr:{backends}:busy      hash  worker -> its calls in flight at each backend, JSON
tr:{backends}:reports   hash  worker -> what it measured at each backend, JSON
tr:{backends}:slotted   hash  backend with slots -> when a worker last said so, ms
tr:{backends}:probe:<d> string  of a backend: a worker probes it, so others do not; expires
tr:{slots:<d>}:held     zset  of a backend with slots: id -> until when it has a slot, ms
tr:{slots:<d>}:line     zset  id that waits for a slot -> its place
tr:{slots:<d>}:entries  hash  id that waits for a slot -> its queue entry, JSON
tr:{slots:<d>}:turns    hash  owner -> the last place that it got
"""

from __future__ import annotations

from shared.redis.keys import digest_of

BREAKERS = "tr:{backends}:breakers"
BUSY = "tr:{backends}:busy"
REPORTS = "tr:{backends}:reports"
SLOTTED = "tr:{backends}:slotted"


def probe(backend: str) -> str:
    """Return the key of the lock of a backend's probe."""
    return f"tr:{{backends}}:probe:{digest_of(backend)}"


def slots(backend: str) -> list[str]:
    """Return the keys of the slots of a backend: held, line, entries, turns."""
    tag = f"tr:{{slots:{digest_of(backend)}}}"
    return [f"{tag}:{part}" for part in ("held", "line", "entries", "turns")]
