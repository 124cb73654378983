"""The keys and channels of people's own streams. See shared/redis/keys.py for all others.

All streams of one owner are in one slot, `{ds:<digest of the owner>}`, so one script can change a
stream, the stream from which it was forked, and the sums of the owner. `<p>` is the digest of a
stream's path: a path may hold any character.

    tr:{ds:<d>}:meta:<p>       hash     path, type, tail, closed, times, lineage, …
    tr:{ds:<d>}:entries:<p>    stream   entry id = <end>-<tag>; fields d = bytes, p = tag before
    tr:{ds:<d>}:producers:<p>  hash     producer id -> "<epoch> <seq> <when, ms>"
    tr:{ds:<d>}:live:<p>       channel  appended entries, closures, deletions
    tr:{ds:<d>}:names          zset     path -> when the stream expires, ms
    tr:{ds:<d>}:sums           hash     bytes = of all entries of the owner
    tr:{ds:<d>}:tails          hash     path -> tail
    tr:{ds:<d>}:subs           set      ids of subscriptions
    tr:{ds:<d>}:sub:<s>        hash     one subscription: type, pattern, generation, wake, lease, …
    tr:{ds:<d>}:links:<s>      hash     path -> kinds of the link, and the acknowledged offset
    tr:ds:wakes                zset     <digest of an owner> and id -> when to look at it, ms
    tr:ds:owners               zset     digest of an owner -> when to look for expired streams, ms
    tr:ds:signing              string   the private key that signs webhooks
"""

from __future__ import annotations

from shared.redis.keys import digest_of

OWNERS = "tr:ds:owners"
SIGNING = "tr:ds:signing"
WAKES = "tr:ds:wakes"
PREFIX = "tr:{ds:"


def meta(owner: str, path: str) -> str:
    return _of(owner, "meta", path)


def entries(owner: str, path: str) -> str:
    return _of(owner, "entries", path)


def producers(owner: str, path: str) -> str:
    return _of(owner, "producers", path)


def live(owner: str, path: str) -> str:
    return _of(owner, "live", path)


def names(owner: str) -> str:
    return _of(owner, "names")


def sums(owner: str) -> str:
    return _of(owner, "sums")


def tails(owner: str) -> str:
    return _of(owner, "tails")


def subscriptions(owner: str) -> str:
    return _of(owner, "subs")


def subscription(owner: str, subscription_id: str) -> str:
    return _of(owner, "sub", subscription_id)


def links(owner: str, subscription_id: str) -> str:
    return _of(owner, "links", subscription_id)


def _of(owner: str, kind: str, *name: str) -> str:
    """Return a key in the slot of an owner, given by its digest."""
    return ":".join((f"{PREFIX}{owner}}}", kind, *map(digest_of, name)))
