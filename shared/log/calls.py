"""The keys and arguments of the scripts of a generation, and the reply of `create`. Pure.

A script declares exactly the keys that it touches. While a cluster migrates a slot, a script on
several keys waits if one of them is absent; a script on one key never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.redis import keys
from shared.redis.pipeline import Call


def keys_of(generation_id: str) -> tuple[str, str]:
    return keys.meta(generation_id), keys.log(generation_id)


def with_readers(generation_id: str) -> tuple[str, str, str]:
    return *keys_of(generation_id), keys.readers(generation_id)


def readers_of(generation_id: str) -> tuple[str, str]:
    return keys.meta(generation_id), keys.readers(generation_id)


def create_call(
    generation_id: str, fields: Mapping[str, str | bytes], *, may_be_lost: bool
) -> Call:
    pairs = [part for pair in fields.items() for part in pair]
    return [keys.meta(generation_id)], [int(may_be_lost), *pairs]


def read_created(reply: Any) -> tuple[bool, str, int]:
    """Return whether the generation is new, its status, and when it was created, ms since 1970."""
    if reply[0] == b"ok":
        return True, "queued", int(reply[1])
    return False, reply[1].decode(), int(reply[2])
