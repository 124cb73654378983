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
    tr:{owner:<d>}:bytes hash     id -> bytes that it keeps: log, request; and their total
    tr:{owner:<d>}:until zset     id -> when its log is gone, ms
    tr:{chat:<d>}:runs   zset     id -> created, ms; <d> = digest of owner and chat
    tr:{chat:<d>}:stops  string   how often the chat was stopped
    tr:{jobs}:wake       list     something may be due: look now
    tr:{jobs}:counts     hash     what the jobs role has done -> how often
    tr:{jobs}:schedule:<id>   hash  one schedule: owner, kind, request, when, next, last
    tr:{jobs}:schedules       zset  id -> when it is due, ms
    tr:{jobs}:schedules:<d>   zset  an owner's: id -> created, ms
    tr:{jobs}:unfinished:<d>  set   those of an owner's that are due again
    tr:{jobs}:schedule-key:<d>  string  id and body hash of an Idempotency-Key
    tr:{jobs}:hook:<id>  hash     one webhook: url, secret, state, body, tries
    tr:{jobs}:hooks:waiting   zset  id -> when to look whether it has ended, ms
    tr:{jobs}:hooks:owners    zset  <digest of the owner> -> when to look for deliveries, ms
    tr:{jobs}:hooks:hosts:<d> zset  an owner's places -> when to look for deliveries there, ms
    tr:{jobs}:hooks:hosts     zset  the same of records without an owner: an older version's
    tr:{jobs}:hooks:due:<d>   zset  id -> when to deliver, ms; <d> = digest of the place
    tr:{jobs}:hooks:busy:<d>  zset  id -> until when an attempt counts as under way, ms; of a host
    tr:{jobs}:hooks:clock:<d> string  when the last look at what one owner waits for is, ms
    tr:file:<id>         hash     one file: owner, bytes, created, filename, purpose, expires
    tr:files:<digest>    zset     an owner's files: id -> created, ms
    tr:files:expiry      zset     all files: id and <digest> -> expires, ms
    tr:{files:<digest>}:expiries  zset  an owner's files that are counted: id -> expires, ms
    tr:{files:<digest>}:sizes     hash  the same: id -> bytes; and `sum`
    tr:{<batch>}:batch   hash     one batch: status, counts, cursor, …; its log is as a generation's
    tr:{<batch>}:flight  hash     line -> offset, length, try
    tr:{<batch>}:parts   list     objects that hold results
    tr:{<batch>}:dead    list     lines that failed, JSON
    tr:{jobs}:batches    zset     unfinished batches: id -> created, ms
    tr:batches:<digest>  zset     an owner's batches: id -> created, ms
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
JOBS_COUNTS = "tr:{jobs}:counts"
SCHEDULES = "tr:{jobs}:schedules"
SCHEDULES_UNFINISHED = "tr:{jobs}:unfinished:"
HOOKS_WAITING = "tr:{jobs}:hooks:waiting"
HOOKS_HOSTS = "tr:{jobs}:hooks:hosts"
HOOKS_OWNERS = "tr:{jobs}:hooks:owners"
BATCHES_ACTIVE = "tr:{jobs}:batches"
FILES_EXPIRY = "tr:files:expiry"


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


def file(file_id: str) -> str:
    return f"tr:file:{file_id}"


def files(owner: str) -> str:
    return files_by(_digest(owner))


def files_by(digest: str) -> str:
    return f"tr:files:{digest}"


def files_expiries(digest: str) -> str:
    return f"tr:{{files:{digest}}}:expiries"


def files_sizes(digest: str) -> str:
    return f"tr:{{files:{digest}}}:sizes"


def file_entry(file_id: str, owner: str) -> str:
    """Return the member of `FILES_EXPIRY`: it outlives the record, and still leads to the index."""
    return f"{file_id} {_digest(owner)}"


def split_file_entry(entry: str) -> tuple[str, str]:
    """Return the file's id and the digest of its owner."""
    file_id, _, digest = entry.partition(" ")
    return file_id, digest


def batch(batch_id: str) -> str:
    return f"tr:{{{batch_id}}}:batch"


def batch_flight(batch_id: str) -> str:
    return f"tr:{{{batch_id}}}:flight"


def batch_parts(batch_id: str) -> str:
    return f"tr:{{{batch_id}}}:parts"


def batch_dead(batch_id: str) -> str:
    return f"tr:{{{batch_id}}}:dead"


def batches(owner: str) -> str:
    return f"tr:batches:{_digest(owner)}"


def schedule(schedule_id: str) -> str:
    return f"tr:{{jobs}}:schedule:{schedule_id}"


def schedules_of(owner: str) -> str:
    return f"tr:{{jobs}}:schedules:{_digest(owner)}"


def schedules_unfinished(owner: str) -> str:
    return SCHEDULES_UNFINISHED + _digest(owner)


def schedule_key(owner: str, key: str) -> str:
    return f"tr:{{jobs}}:schedule-key:{_digest(owner, key)}"


def hook(subject_id: str) -> str:
    return f"tr:{{jobs}}:hook:{subject_id}"


def hook_place(owner: str, host: str) -> str:
    """Return the member of `hooks_hosts` for one owner's deliveries to one host.

    Without an owner it is the host alone, as an older version has it.
    """
    return f"{_digest(owner)} {host}" if owner else host


def split_hook_place(place: str) -> tuple[str, str]:
    """Return the digest of the owner, which may be empty, and the host."""
    digest, _, host = place.rpartition(" ")
    return digest, host


def hooks_hosts(owner_digest: str) -> str:
    return f"{HOOKS_HOSTS}:{owner_digest}" if owner_digest else HOOKS_HOSTS


def hooks_due(place: str) -> str:
    return f"tr:{{jobs}}:hooks:due:{_digest(place)}"


def hooks_busy(host: str) -> str:
    return f"tr:{{jobs}}:hooks:busy:{_digest(host)}"


def hooks_clock(owner: str, kind: str) -> str:
    return f"tr:{{jobs}}:hooks:clock:{_digest(owner, kind)}"


def owner(name: str) -> str:
    return f"tr:owner:{_digest(name)}"


def digest_of(owner: str) -> str:
    """Return what stands for an owner in keys and members."""
    return _digest(owner)


def owner_bytes(name: str) -> str:
    return f"tr:{{owner:{_digest(name)}}}:bytes"


def owner_until(name: str) -> str:
    return f"tr:{{owner:{_digest(name)}}}:until"


def _digest(*parts: str) -> str:
    """Names that clients choose become fixed-size key parts: no braces, no odd bytes, no growth."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
