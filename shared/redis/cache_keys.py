"""The keys of stored answers (shared/cache/answers.py).

tr:cached:{<m>}:<key>     hash    one stored answer; <m>: digest of the model's name
tr:cache-index:{<m>}      zset    <key> -> when it expires, ms
tr:{id}:cached            string  the name of the answer that this generation has stored
"""

from __future__ import annotations

from shared.redis.keys import digest_of

CACHED = "tr:cached:"


def cached(model: str, key: str) -> str:
    return f"{CACHED}{{{digest_of(model)}}}:{key}"


def cache_index(model: str) -> str:
    return f"tr:cache-index:{{{digest_of(model)}}}"


def index_of(name: str) -> str:
    """Return the index that has a stored answer."""
    return f"tr:cache-index:{name.removeprefix(CACHED).partition(':')[0]}"


def key_of(name: str) -> str:
    """Return the member of the index for a stored answer."""
    return name.rpartition(":")[2]


def cached_by(generation_id: str) -> str:
    return f"tr:{{{generation_id}}}:cached"
