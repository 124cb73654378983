"""Every key and channel name in Redis, spelt here and nowhere else.

The keys of one generation share the hash tag `{id}` and those of the queue `{q}`, so that each
script stays within one cluster slot.

    tr:{<id>}:log        stream   entry id = <attempt>-<seq>, field `e` = the event's JSON
    tr:{<id>}:meta       hash     status, owner, request, attempt, token, lease, …
    tr:{<id>}:live       channel  entries as they are appended
    tr:{<id>}:readers    zset     node -> when its readers stop counting (grace), ms
    tr:{q}:<lane>        stream   who should look: lanes resume, interactive, batch
    tr:{q}:waiting:<p>   zset     id -> since when it waits, ms; p = interactive, batch
    tr:{q}:running       zset     id -> when it began, ms
    tr:{q}:later         zset     queue entry -> when to try it again, ms
    tr:{q}:janitor       string   one pass at a time
    tr:{q}:requeued:<id> string   put back lately: not again for a while
    tr:{q}:cancel        channel  ids whose backend should stop now
    tr:idem:<digest>     string   id and body hash of an Idempotency-Key
    tr:session:<digest>  zset     id -> created, ms
    tr:owner:<digest>    zset     id -> created, ms
    tr:{chat:<d>}:runs   zset     id -> created, ms; <d> = digest of owner and chat
    tr:{chat:<d>}:stops  string   how often the chat was stopped
    tr:{jobs}:wake       list     something may be due: look now
    tr:workers           hash     worker -> presence, JSON
    tr:probe:<node>      channel  a node's own probe of its live connection
"""

from __future__ import annotations

import hashlib

GROUP = "workers"
LANES = ("resume", "interactive", "batch")
PRIORITIES = ("interactive", "batch")
FIELD = b"e"  # the one field of every entry, in logs and lanes
WORKERS = "tr:workers"
RUNNING = "tr:{q}:running"
LATER = "tr:{q}:later"
CANCEL = "tr:{q}:cancel"
JANITOR = "tr:{q}:janitor"
JOBS_WAKE = "tr:{jobs}:wake"


def log(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:log"


def meta(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:meta"


def live(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:live"


def readers(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:readers"


def lane(name: str) -> str:
    return f"tr:{{q}}:{name}"


def waiting(priority: str) -> str:
    return f"tr:{{q}}:waiting:{priority}"


def requeued(generation_id: str) -> str:
    return f"tr:{{q}}:requeued:{generation_id}"


def probe(node: str) -> str:
    return f"tr:probe:{node}"


def idempotency(owner: str, key: str) -> str:
    return f"tr:idem:{_digest(owner, key)}"


def session(owner: str, name: str) -> str:
    return f"tr:session:{_digest(owner, name)}"


def chat_runs(owner: str, chat: str) -> str:
    return f"tr:{{chat:{_digest(owner, chat)}}}:runs"


def chat_stops(owner: str, chat: str) -> str:
    return f"tr:{{chat:{_digest(owner, chat)}}}:stops"


def owner(name: str) -> str:
    return f"tr:owner:{_digest(name)}"


def _digest(*parts: str) -> str:
    """Names that clients choose become fixed-size key parts: no braces, no odd bytes, no growth."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
