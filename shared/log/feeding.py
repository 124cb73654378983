"""Appends to the generation of a feeder: a producer outside of the workers that gives no numbers.

Several processes of a feeder may write one generation, through any node, and none has the holder's
token: the node says who may feed. The entries come after the newest one, in the order in which the
calls reach Redis. A repeat key makes a repeated call write nothing.
Source: docs/dialects/lobehub-gateway.md, shared/redis/scripts/feed.lua.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared.log.producing import Appended, Denied, begin_producing, read_appended
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import translated
from shared.redis.pipeline import Call

REPEAT_KEY_CHARACTERS = 12
OPERATION_STATUS = "operation_status"  # of meta: what the feeder last said


@dataclass(frozen=True, slots=True)
class Repeated:
    """An earlier call with the same repeat key has written its entries; `status` as it is now."""

    status: str


@dataclass(frozen=True, slots=True)
class Fed:
    """One append of a feeder.

    Attributes:
        entries: JSON events.
        status: given where the last entry is the `end` event.
        repeat_key: of `repeat_key`; empty: a repeat would write again.
        operation_status: noted in meta; empty: unchanged.
    """

    generation_id: str
    entries: Sequence[bytes]
    status: str = ""
    repeat_key: str = ""
    operation_status: str = ""


def repeat_key(kind: str, name: str) -> str:
    """Return the key of a call that may be repeated.

    Args:
        kind: of the call; the same name with another kind is another key.
        name: any text of the client.
    """
    digest = hashlib.sha256(f"{kind}\n{name}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:REPEAT_KEY_CHARACTERS]


def draw_repeat_key() -> str:
    """Return the key of a call that only this process repeats."""
    return secrets.token_hex(REPEAT_KEY_CHARACTERS // 2)


async def feed(store: Store, appends: Sequence[Fed]) -> list[Appended | Repeated | Denied]:
    """Make appends of one generation, in order; begin it first if its creator could not.

    Raises:
        Unavailable: Redis did not answer in time; entries may have been written. Repeating the call
            is safe where each append has a repeat key.
    """
    calls = [_call(store, fed) for fed in appends]
    replies = await store.scripts.run_all(calls)
    if replies[0][0] == b"queued":
        name, token = appends[0].generation_id, replies[0][1].decode()
        begun = await begin_producing(store, name, token, is_first=True)
        if isinstance(begun, Denied):
            return [begun for _ in appends]
        replies = await store.scripts.run_all(calls)
    return [_outcome(reply) for reply in replies]


def _call(store: Store, fed: Fed) -> tuple[str, Call]:
    name = fed.generation_id
    args = [
        fed.status, store.retention_ms, store.settings.answer_bytes_max, fed.repeat_key,
        fed.operation_status, *fed.entries,
    ]  # fmt: skip
    script = "feed_end" if fed.status else "feed"
    return script, ([keys.meta(name), keys.log(name), keys.readers(name)], args)


def _outcome(reply: Sequence[Any]) -> Appended | Repeated | Denied:
    match reply[0]:
        case b"ok":
            return read_appended(reply)
        case b"repeated":
            return Repeated(reply[1].decode())
    return Denied(reply[0].decode(), b"".join(reply[1:]).decode())


async def operation_status(store: Store, generation_id: str) -> str:
    """Return the status that the feeder noted last; empty: none. Raises Unavailable."""
    with translated():
        found: bytes | None = await store.redis.hget(keys.meta(generation_id), OPERATION_STATUS)  # type: ignore[misc]
    return (found or b"").decode()
