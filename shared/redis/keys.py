"""Every key and channel name in Redis.

Invariant: only this module builds names, and beside it backend_keys.py, cache_keys.py and
stream_keys.py for their subjects. Modules that walk through all keys with SCAN also have beginnings
and ends of names: jobs/index_janitor.py, shared/erasure/owner.py, shared/erasure/references.py.

Each script, transaction and blocking read stays within one hash tag, so in one slot of a cluster:
`{id}` of a generation or batch, `{q}` or `{q<n>}` of a partition of the queue, `{jobs}` of the
jobs role, and a tag for the records of each owner and chat. A key without a tag is used alone.

    tr:{<id>}:log        stream   entry id = <attempt>-<seq>, field `e` = the event's JSON
    tr:{<id>}:meta       hash     status, owner, request, attempt, token, lease, …
    tr:{<id>}:request    hash     number -> piece of a large request
    tr:{<id>}:live       channel  appended entries
    tr:{<id>}:timeline   stream   moments of its life, not of its text: field `e` = JSON, `at` = ms
    tr:{<id>}:readers    zset     node -> until when its readers count (grace), ms; expires
    tr:{<id>}:audio      stream   audio input: entry id = <seq>-0, fields `e` = bytes, `t`, `l`
    tr:audio:<worker>    channel  ids of generations of a worker whose audio input has grown
    tr:{q}:<lane>        stream   queue entries; lanes resume, interactive, batch
    tr:{q}:turns:<lane>  hash     <digest of an owner> -> last entry of its turn, and its weight
    tr:{q}:line:<lane>:<d> zset   of an owner: queue entry -> when it was added, µs
    tr:{q}:waiting:<p>   zset     id -> waiting since, ms; p = interactive, batch
    tr:{q}:running       zset     id -> when a worker last reported it, at first when accepted, ms
    tr:{q}:due           zset     id -> when a time limit, or a lost producer, may end it, ms
    tr:{q}:unsettled     zset     ended generation whose usage is to be counted -> since, µs
    tr:{q}:later         zset     queue entry -> when to queue it again, ms
    tr:{q}:unlisted      zset     id that no index names yet -> created, ms; on a cluster only
    tr:{q}:janitor       string   lock of one pass
    tr:{q}:requeued:<id> string   guard: the id was requeued recently; with `:entry`: its last entry
    tr:{q}:cancel        channel  ids of cancelled generations, of all partitions
    tr:{q<n>}:…, tr:{q<n>.<m>}:…  the same in partition n of several, and on a cluster
    tr:deleted           channel  ids of deleted generations, for all nodes
    tr:partitions        string   number of partitions of the queue
    tr:idem:<digest>     string   id and body hash of an Idempotency-Key
    tr:session:<digest>  zset     of one owner, or of all (with tokens): id -> created, ms
    tr:owner:<digest>    zset     id -> created, ms
    tr:{owner:<d>}:bytes hash     id -> bytes of its log and request; and their total
    tr:{owner:<d>}:until zset     id -> when its log expires, ms
    tr:{usage:<d>}:<month>        hash    of an owner: day and model -> usage
    tr:{usage:<d>}:counted:<day>  hash    id -> the part of its usage in these sums; expires
    tr:{usage:<d>}:forgotten      string  when the owner was forgotten, ms; expires
    tr:usage-owners      zset     owner -> when their usage was last counted, ms
    tr:{owner:<d>}:limits  hash   how much of the limits is used; id -> its tokens
    tr:{owner:<d>}:active  zset   id -> until when it counts at most, ms
    tr:{owner:<d>}:places  hash   node -> number of its readers, and until when they count, ms
    tr:{owner:<d>}:told    hash   reader -> number of its refusals: too many readers
    tr:{chat:<d>}:runs   zset     id -> created, ms; <d> = digest of owner and chat
    tr:{chat:<d>}:stops  string   number of stops
    tr:{jobs}:wake       list     wakes a jobs process
    tr:{jobs}:beats      hash     sign of life of the jobs role -> when, ms
    tr:{jobs}:counts     hash     counter of the jobs role -> value
    tr:{jobs}:schedule:<id>   hash  one schedule: owner, kind, request, when, next, last
    tr:{jobs}:schedules       zset  id -> when to fire it, ms
    tr:{jobs}:schedules:<d>   zset  of an owner: id -> created, ms
    tr:{jobs}:unfinished:<d>  set   of an owner: ids that will fire again
    tr:{jobs}:schedule-key:<d>  string  id and body hash of an Idempotency-Key
    tr:{jobs}:hook:<id>  hash     one webhook: url, secret, state, body, tries
    tr:{jobs}:hooks:waiting   zset  id -> when to check whether it has ended, ms
    tr:{jobs}:hooks:owners    zset  <digest of the owner> -> when to look for deliveries, ms
    tr:{jobs}:hooks:hosts:<d> zset  of an owner: place -> when to look for deliveries, ms
    tr:{jobs}:hooks:hosts     zset  of records without an owner, from an older version
    tr:{jobs}:hooks:due:<d>   zset  id -> when to deliver, ms; <d> = digest of the place
    tr:{jobs}:hooks:busy:<d>  zset  of a host: id -> until when its attempt may run, ms
    tr:{jobs}:hooks:dead      zset  id -> when its webhook was given up, ms
    tr:{jobs}:hooks:clock:<d> string  of an owner: time of the last planned check, ms
    tr:file:<id>         hash     one file: owner, bytes, created, filename, purpose, expires
    tr:files:<digest>    zset     of an owner: id -> created, ms
    tr:files:expiry      zset     all files: id and <digest> -> expires, ms
    tr:{docs:<digest>}:texts zset  kept texts of an owner's documents: sha -> expires, ms
    tr:{docs:<digest>}:<sha> string  the text of one document, zlib of JSON
    tr:{files:<digest>}:expiries  zset  counted files of an owner: id -> expires, ms
    tr:{files:<digest>}:sizes     hash  counted files of an owner: id -> bytes; and `sum`
    tr:{<batch>}:batch   hash     one batch: status, counts, cursor, …; it also has a log and meta
    tr:{<batch>}:flight  hash     line in flight -> offset, length, try
    tr:{<batch>}:parts   list     names of objects with results
    tr:{<batch>}:dead    list     failed lines, JSON
    tr:{jobs}:token-owners    zset  <digest of an owner> -> when a token last named the owner, s
    tr:{jobs}:batches    zset     unfinished batches: id -> created, ms
    tr:batches:<digest>  zset     of an owner: id -> created, ms
    tr:workers           hash     worker -> presence, JSON
    tr:{tr:workers}:watched     string  a console is open; expires
    tr:{tr:workers}:drain:<w>   string  who told the worker <w> to drain; expires
    tr:{tr:workers}:runs        hash    worker -> its runs, JSON; only while a console is open
    tr:{tr:workers}:nodes       hash    API node -> its report, JSON
    tr:{tr:workers}:history     stream  entry id = end of ten seconds, ms; field `e` = a point, JSON
    tr:continuations     hash     <digest of a model> -> how its server continues answers, JSON
    tr:model-lists       hash     <digest of a table> -> names of its server's models, JSON
    tr:{share:<id>}      hash     a share: owner, generation or session, until, digest of a secret
    tr:shares:<digest>   zset     of an owner: id -> expires, s
    tr:probe:<node>      channel  a node's probe of its own live connection
"""

from __future__ import annotations

import hashlib

GROUP = "workers"
LANES = ("resume", "interactive", "batch")
PRIORITIES = ("interactive", "batch")
FIELD = b"e"  # the one field of every entry, in logs and lanes
WORKERS = "tr:workers"
# In the slot of `WORKERS`, so that a report of a worker is one round trip to one server.
WATCHED = "tr:{tr:workers}:watched"
WORKER_RUNS = "tr:{tr:workers}:runs"
NODES = "tr:{tr:workers}:nodes"
HISTORY = "tr:{tr:workers}:history"
CONTINUATIONS = "tr:continuations"
MODEL_LISTS = "tr:model-lists"
USAGE_OWNERS = "tr:usage-owners"
CANCEL = "tr:{q}:cancel"
DELETED = "tr:deleted"
PARTITIONS = "tr:partitions"
QUEUE = "q"  # the hash tag of the queue, if it has one partition
JOBS_WAKE = "tr:{jobs}:wake"
JOBS_COUNTS = "tr:{jobs}:counts"
JOBS_BEATS = "tr:{jobs}:beats"
SCHEDULES = "tr:{jobs}:schedules"
SCHEDULES_UNFINISHED = "tr:{jobs}:unfinished:"
SCHEDULE_KEYS = "tr:{jobs}:schedule-key:"
IDEMPOTENCY = "tr:idem:"
HOOKS_WAITING = "tr:{jobs}:hooks:waiting"
HOOKS_HOSTS = "tr:{jobs}:hooks:hosts"
HOOKS_OWNERS = "tr:{jobs}:hooks:owners"
HOOKS_DEAD = "tr:{jobs}:hooks:dead"
TOKEN_OWNERS = "tr:{jobs}:token-owners"
BATCHES_ACTIVE = "tr:{jobs}:batches"
FILES_EXPIRY = "tr:files:expiry"


def request(generation_id: str) -> str:
    """Return the key of the pieces of a request. No script touches it."""
    return f"tr:{{{generation_id}}}:request"


def log(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:log"


def meta(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:meta"


def live(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:live"


def readers(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:readers"


def timeline(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:timeline"


def audio(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:audio"


def audio_bell(worker: str) -> str:
    """Return the channel that audio_append.lua rings for a worker."""
    return f"tr:audio:{worker}"


# Keys of one partition of the queue. `tag`: its hash tag, as `Partitions.of` returns it.


def lane(name: str, tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:{name}"


def turns(lane: str, tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:turns:{lane}"


def line(lane: str, owner_digest: str, tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:line:{lane}:{owner_digest}"


def waiting(priority: str, tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:waiting:{priority}"


def running(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:running"


def due(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:due"


def later(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:later"


def unsettled(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:unsettled"


def unlisted(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:unlisted"


def janitor(tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:janitor"


def requeued(generation_id: str, tag: str = QUEUE) -> str:
    return f"tr:{{{tag}}}:requeued:{generation_id}"


def drain_order(worker: str) -> str:
    return f"tr:{{tr:workers}}:drain:{worker}"


def share(share_id: str) -> str:
    return f"tr:{{share:{share_id}}}"


def shares_of(owner: str) -> str:
    return f"tr:shares:{digest_of(owner)}"


def probe(node: str) -> str:
    return f"tr:probe:{node}"


def idempotency(owner: str, key: str) -> str:
    return IDEMPOTENCY + digest_of(owner, key)


def session(owner: str, name: str) -> str:
    return f"tr:session:{digest_of(owner, name)}"


def session_of_all(name: str) -> str:
    """Return the index of a session's generations, whoever owns them; no owner has no name."""
    return session("", name)


def chat_runs(owner: str, chat: str) -> str:
    return f"tr:{{chat:{digest_of(owner, chat)}}}:runs"


def chat_stops(owner: str, chat: str) -> str:
    return f"tr:{{chat:{digest_of(owner, chat)}}}:stops"


def file(file_id: str) -> str:
    return f"tr:file:{file_id}"


def files_by(digest: str) -> str:
    return f"tr:files:{digest}"


def files_expiries(digest: str) -> str:
    return f"tr:{{files:{digest}}}:expiries"


def files_sizes(digest: str) -> str:
    return f"tr:{{files:{digest}}}:sizes"


def document(owner: str, digest: str) -> str:
    return f"tr:{{docs:{digest_of(owner)}}}:{digest}"


def documents(owner: str) -> str:
    return f"tr:{{docs:{digest_of(owner)}}}:texts"


def file_entry(file_id: str, owner: str) -> str:
    """Return the member of `FILES_EXPIRY`. It outlives the record and names the owner's index."""
    return f"{file_id} {digest_of(owner)}"


def split_file_entry(entry: str) -> tuple[str, str]:
    """Return the id of the file and the digest of its owner."""
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
    return f"tr:batches:{digest_of(owner)}"


def schedule(schedule_id: str) -> str:
    return f"tr:{{jobs}}:schedule:{schedule_id}"


def schedules_of(owner: str) -> str:
    return f"tr:{{jobs}}:schedules:{digest_of(owner)}"


def schedules_unfinished(owner: str) -> str:
    return SCHEDULES_UNFINISHED + digest_of(owner)


def schedule_key(owner: str, key: str) -> str:
    return SCHEDULE_KEYS + digest_of(owner, key)


def hook(subject_id: str) -> str:
    return f"tr:{{jobs}}:hook:{subject_id}"


def hook_place(owner: str, host: str) -> str:
    """Return the place: the member of `hooks_hosts` for the deliveries of one owner to one host.

    Without an owner the place is the host alone, as in an older version.
    """
    return f"{digest_of(owner)} {host}" if owner else host


def split_hook_place(place: str) -> tuple[str, str]:
    """Return the digest of the owner, which may be empty, and the host of a place."""
    digest, _, host = place.rpartition(" ")
    return digest, host


def hooks_hosts(owner_digest: str) -> str:
    return f"{HOOKS_HOSTS}:{owner_digest}" if owner_digest else HOOKS_HOSTS


def hooks_due(place: str) -> str:
    return f"tr:{{jobs}}:hooks:due:{digest_of(place)}"


def hooks_busy(host: str) -> str:
    return f"tr:{{jobs}}:hooks:busy:{digest_of(host)}"


def hooks_clock(owner: str, kind: str) -> str:
    return f"tr:{{jobs}}:hooks:clock:{digest_of(owner, kind)}"


def owner(name: str) -> str:
    return f"tr:owner:{digest_of(name)}"


def owner_bytes(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:bytes"


def owner_until(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:until"


def usage_month(owner: str, month: str) -> str:
    return f"tr:{{usage:{digest_of(owner)}}}:{month}"


def usage_counted(owner: str, day: str) -> str:
    return f"tr:{{usage:{digest_of(owner)}}}:counted:{day}"


def usage_forgotten(owner: str) -> str:
    return f"tr:{{usage:{digest_of(owner)}}}:forgotten"


def owner_limits(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:limits"


def owner_active(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:active"


def owner_places(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:places"


def owner_told(name: str) -> str:
    return f"tr:{{owner:{digest_of(name)}}}:told"


def digest_of(*parts: str) -> str:
    """Return a key part of fixed size for names that clients choose: no braces, no odd bytes."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
