"""Extends the life of the keys of a generation that lives longer than usual.

shared/log/lifetimes.py has the keys, their lives, and when an extension is due. A usual generation
ends before that, and costs no call. Invariant: an extension lets no key that belongs to one ended
generation outlive its meta. The generation may end during the extension, so its status is read once
more. If it has ended, all these keys get the rest of the life of meta.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from shared.audio.record import FIELD as AUDIO
from shared.audio.record import audio_entry
from shared.errors import Unavailable
from shared.log import owner_bytes
from shared.log.lifetimes import (
    attempt_silence_s,
    counted_ms,
    extend_every_s,
    must_extend,
    named_ms,
    request_ms,
)
from shared.log.producing import Appended
from shared.log.records import Begun
from shared.log.request_pieces import piece_count
from shared.log.store import Store
from shared.queue.allowance import EXTEND, MARK, extension
from shared.queue.leaving import forget
from shared.queue.listing import Listed, Listing
from shared.queue.pace import Pace
from shared.redis import keys
from shared.redis.client import Command, raise_errors
from shared.redis.pipeline import Call

REMEMBERED_MAX = 10_000  # generations of producers whose last extension a node remembers
_FIELDS = (
    "status", "owner", "session", "created", "idem", "fed", "wait", "pieces", MARK, AUDIO
)  # fmt: skip
_ACTIVE = (b"queued", b"running")


class Extensions:
    """The extensions that one API node makes for outside producers."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pace = Pace(REMEMBERED_MAX)

    async def note(self, generation_id: str, appended: Appended) -> None:
        """Extend the keys of a generation after an append, if they might expire before the next.

        A node extends each generation at most once in `extend_every_s`. If Redis does not answer,
        the next append after this time tries again: the append itself is done.
        """
        settings = self._store.settings
        if not must_extend(settings, appended.age_s, appended.lease_s):
            return
        if not self._pace.take(generation_id, extend_every_s(settings)):
            return
        with suppress(Unavailable):
            await extend(self._store, generation_id, appended.lease_s)


async def extend_begun(store: Store, begun: Begun) -> None:
    """Extend the keys of a generation that a worker has begun, if they might expire.

    If Redis does not answer, the next attempt tries again.
    """
    meta, settings = begun.meta, store.settings
    is_line = b"wait" in begun.fields  # of a batch: only a large request has a life of its own
    if is_line and not piece_count(begun.fields.get(b"request", b"")):
        return
    age_s, silence_s = (meta.held_since_ms - meta.created_at_ms) / 1000, attempt_silence_s(settings)
    if must_extend(settings, age_s, silence_s):
        with suppress(Unavailable):
            await extend(store, meta.generation_id, silence_s)


async def extend(store: Store, generation_id: str, silence_s: float) -> None:
    """Set the expiries of all keys of an unfinished generation again.

    Args:
        silence_s: how long no other call may extend them, in addition.

    Raises:
        Unavailable: Redis did not answer in time, or refused; some keys may be extended.
    """
    run = store.scripts.pipeline.run
    read = await run([("HMGET", keys.meta(generation_id), *_FIELDS)])
    raise_errors(read)
    (found,) = read
    if found[0] not in _ACTIVE:
        return
    fields = dict(zip(_FIELDS, found, strict=True))
    calls: list[tuple[str, Call]] = []
    if fields["wait"] is None:  # lines of a batch are in no record of their owner
        owner, session = (fields["owner"] or b"").decode(), (fields["session"] or b"").decode()
        listed = Listed(generation_id, owner, session, int(fields["created"]))
        await Listing(store.redis, store, store.settings).add(listed, silence_s)
        calls = _entries(store, generation_id, fields, silence_s)
    replies = await store.scripts.run_mixed(calls) if calls else []
    replies += await run(_expiries(store, generation_id, fields, silence_s))
    meta = keys.meta(generation_id)
    present = await run([("HGET", meta, "status"), ("PTTL", meta)])
    raise_errors(present)
    status, left_ms = present
    if status not in _ACTIVE:
        replies += await run(_ends(store, generation_id, fields, left_ms))
        await forget(store, generation_id)
    raise_errors(replies)


def _ends(
    store: Store, generation_id: str, fields: Mapping[str, Any], left_ms: int
) -> list[Command]:
    """Return the commands for the keys whose expiry `forget` does not set.

    Args:
        left_ms: PTTL of meta; not positive: meta is absent.
    """
    kept_ms = left_ms if left_ms > 0 else 2 * store.retention_ms
    commands: list[Command] = [("PEXPIRE", keys.timeline(generation_id), kept_ms)]
    if fields["fed"]:  # 1 s earlier: a key must never name an absent generation
        commands.append(("PEXPIRE", fields["fed"].decode(), max(1, kept_ms - 1000)))
    return commands


def _expiries(
    store: Store, generation_id: str, fields: Mapping[str, Any], silence_s: float
) -> list[Command]:
    settings = store.settings
    named = named_ms(settings, silence_s)
    wait_s = int(fields["wait"]) / 1000 if fields["wait"] else None
    request = request_ms(settings, wait_s, silence_s)
    given = {
        keys.timeline(generation_id): named,
        **{fields[name].decode(): named for name in ("idem", "fed") if fields[name]},
    }
    if fields["pieces"]:
        given[keys.request(generation_id)] = request
    if fields[AUDIO]:
        given[keys.audio(generation_id)] = request
    return [("PEXPIRE", name, kept_ms) for name, kept_ms in given.items()]


def _entries(
    store: Store, generation_id: str, fields: Mapping[str, Any], silence_s: float
) -> list[tuple[str, Call]]:
    settings, owner = store.settings, (fields["owner"] or b"").decode()
    names = [generation_id, *([audio_entry(generation_id)] if fields[AUDIO] else [])]
    calls = [
        (owner_bytes.SCRIPT, owner_bytes.extended(owner, name, settings, silence_s))
        for name in names
    ]
    if fields[MARK]:
        calls.append((EXTEND, extension(owner, generation_id, counted_ms(settings, silence_s))))
    return calls
