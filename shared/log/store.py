"""The log of each generation in Redis: read it, write it as its holder, end it.

Invariant: every write is one script on the keys of one `{id}`, and may be repeated. No error of
redis-py passes this module. The rules: docs/architecture.md, "The write protocol".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log import owner_bytes
from shared.log.calls import create_call, keys_of, read_created, readers_of, with_readers
from shared.log.events import Counts, End, encode, encode_counts
from shared.log.ids import START, EventId, parse_event_id
from shared.log.meta_reader import MetaReader
from shared.log.records import (
    Absent,
    Append,
    Begun,
    Ended,
    Entry,
    Fenced,
    Held,
    Lost,
    Moved,
    Released,
    Writing,
    parse_meta,
    parse_writing,
)
from shared.log.request_pieces import PIECES, fetch
from shared.redis import keys
from shared.redis.client import Client, clock_ms, translated
from shared.redis.pipeline import Call, Pipeline
from shared.redis.scripts import Scripts


class Store(MetaReader):
    """The logs on one Redis.

    Every method may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.

    Args:
        pipeline: carries the scripts; None: redis-py's pool.
    """

    def __init__(self, redis: Client, settings: Settings, pipeline: Pipeline | None = None) -> None:
        super().__init__(redis)
        self.settings = settings
        self.scripts = Scripts(redis, pipeline)
        self.lease_ms = round(settings.lease_s * 1000)
        self.retention_ms = round(settings.retention_s * 1000)

    # Reading

    async def page(self, generation_id: str, start: EventId, count: int) -> list[Entry]:
        """Return up to `count` entries, the one at `start` first; START: from the first entry."""
        assert count > 0
        lowest = "-" if start == START else str(start)
        with translated():
            found = await self.redis.xrange(
                keys.log(generation_id), min=lowest, max="+", count=count
            )
        return [(parse_event_id(entry_id), fields[b"e"]) for entry_id, fields in found]

    async def first_pages(self, ids: Sequence[str], count: int) -> list[list[Entry]]:
        """Return the first `count` entries of many logs in one round trip."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.xrange(keys.log(generation_id), count=count)
            replies = await pipeline.execute()
        return [
            [(parse_event_id(entry_id), fields[b"e"]) for entry_id, fields in found]
            for found in replies
        ]

    async def keep_for(self, ids: Sequence[str], kept_ms: int) -> None:
        """Let ended generations expire `kept_ms` from now, before their retention is over."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.pexpire(keys.log(generation_id), kept_ms)
                pipeline.pexpire(keys.timeline(generation_id), kept_ms)
                pipeline.pexpire(keys.meta(generation_id), 2 * kept_ms)
                pipeline.pexpire(keys.request(generation_id), 2 * kept_ms)
            await pipeline.execute()

    async def now_ms(self) -> int:
        """Return Redis's clock, ms since 1970."""
        return await clock_ms(self.redis)

    # The life of a generation

    async def create(
        self, generation_id: str, fields: Mapping[str, str | bytes], *, may_be_lost: bool
    ) -> tuple[bool, str, int]:
        """Create a generation unless it exists.

        Args:
            may_be_lost: an earlier create of this id may have been lost by Redis.

        Returns:
            whether it is new, its status, and when it was created, ms since 1970.
        """
        create = create_call(generation_id, fields, may_be_lost=may_be_lost)
        return read_created(await self.scripts.run("create", *create))

    async def create_charged(
        self,
        generation_id: str,
        fields: Mapping[str, str | bytes],
        charge: Call | None,
        *,
        may_be_lost: bool,
    ) -> tuple[tuple[bool, str, int], int | None]:
        """Create a generation and record its bytes, in one round trip.

        Args:
            charge: None: record no bytes.

        Returns:
            what `create` returns, and the bytes of all generations of the owner; None: not known.
        """
        create = create_call(generation_id, fields, may_be_lost=may_be_lost)
        (created,), total = await owner_bytes.run_charged(
            self.scripts, [("create", create)], charge
        )
        return read_created(created), total

    async def enqueue_and_create(
        self,
        generation_id: str,
        entry: Call,
        fields: Mapping[str, str | bytes],
        charge: Call | None,
        count: tuple[str, Call] | None = None,
    ) -> tuple[int, int, int | None, Any]:
        """Put a new id on its lane, create it, and record its bytes, in one round trip.

        Returns:
            the reply of `enqueue` (0: the lane is full and has no entry of it), when the generation
            was created, ms since 1970, the bytes of the owner, and the reply of `count`, a script
            and its call.
        """
        create = create_call(generation_id, fields, may_be_lost=False)
        calls = [("enqueue", entry), ("create", create), *([count] if count else [])]
        replies, total = await owner_bytes.run_charged(self.scripts, calls, charge)
        return int(replies[0]), int(replies[1][1]), total, replies[2] if count else None

    async def create_many(
        self, new: Sequence[tuple[str, Mapping[str, str | bytes]]], *, may_be_lost: bool
    ) -> None:
        """Create many generations in one round trip; existing ones do not change."""
        calls = [create_call(*pair, may_be_lost=may_be_lost) for pair in new]
        await self._run_many("create", calls)

    async def begin(
        self,
        generation_id: str,
        token: str,
        worker: str,
        *,
        quiet_until_ms: int = 0,
        forgive_until_ms: int = 0,
        survives_worker: bool = True,
        writes_start: bool = True,
    ) -> Begun | Held | Ended | Absent:
        """Become the holder: a new attempt and its `start`, in one step.

        Args:
            token: random and new; a repeat with the same token returns the same attempt.
            quiet_until_ms: until then, on Redis's clock, an expired lease is not taken over.
            forgive_until_ms: a lease that expired before this does not count as a failure.
            survives_worker: False: a generation whose worker died ends (`on_takeover = "fail"`).
            writes_start: False: the caller appends `start` itself.
        """
        limits = self.settings.attempts_max, self.retention_ms
        flags = int(not survives_worker), int(not writes_start)
        args = [token, self.lease_ms, worker, quiet_until_ms, forgive_until_ms, *limits, *flags]
        reply = await self.scripts.run("begin", with_readers(generation_id), args)
        match reply[0]:
            case b"held":
                return Held(int(reply[1]))
            case b"ended":
                return Ended()
            case b"absent":
                return Absent()
        fields = dict(zip(reply[5::2], reply[6::2], strict=True))
        if count := int(fields.pop(PIECES, 0)):
            fields[b"request"] = await fetch(self.scripts.pipeline, generation_id, count)
        start = (EventId(int(reply[1]), int(reply[2])), reply[4])
        return Begun(start, int(reply[3]), fields, parse_meta(generation_id, fields))

    async def append_many(self, batches: Sequence[Append]) -> list[Writing | Unavailable]:
        """Append to many generations in one round trip; outcomes in order."""
        calls = [
            (("append" if batch.status is None else "finish"), self._append(batch))
            for batch in batches
        ]
        return [parse_writing(reply) for reply in await self.scripts.run_mixed(calls)]

    async def restore(
        self,
        generation_id: str,
        token: str,
        attempt: int,
        top: EventId,
        fields: Mapping[bytes, bytes],
        entries: Sequence[Entry],
    ) -> Writing | Moved:
        """Write lost `entries` again after the entry `top`.

        The caller must be a holder whose last accepted call is less than `RESTORE_WITHIN_S` old
        and whose own log contains `top`, and must keep each call under 256 kB. The script checks
        the rest: no newer holder has begun, and `top` is still the newest entry.

        Args:
            fields: meta, which the script writes if Redis has lost it.
        """
        pairs = [part for pair in fields.items() for part in pair]
        log = [part for event_id, raw in entries for part in (str(event_id), raw)]
        args = [token, attempt, self.lease_ms, str(top), len(pairs), *pairs, *log]
        reply = await self._run("restore", generation_id, args)
        if reply[0] == b"moved":
            return Moved(parse_event_id(reply[1]))
        return _writing(reply)

    async def renew_many(
        self,
        holders: Sequence[tuple[str, str, int, bool]],
        usages: Mapping[str, Counts] | None = None,
    ) -> list[Writing | Unavailable]:
        """Extend the leases of many holders in one round trip.

        Args:
            holders: id, token, attempt, and whether the generation has a grace.
            usages: by id, for the `end` of those whose grace is over.
        """
        found = {name: encode_counts(usage) for name, usage in (usages or {}).items()}
        calls: list[Call] = [
            (
                (with_readers if has_grace else keys_of)(generation_id),
                [token, attempt, self.lease_ms, self.retention_ms, found.get(generation_id, b"")],
            )
            for generation_id, token, attempt, has_grace in holders
        ]
        return [parse_writing(reply) for reply in await self.scripts.run_many("renew", calls)]

    async def release(
        self, generation_id: str, token: str, attempt: int, *, has_failed: bool
    ) -> Released | Ended | Fenced | Lost:
        """Give a generation back, so that the next holder need not wait until the lease expires.

        Args:
            has_failed: count this attempt as failed.
        """
        reply = await self._run("release", generation_id, [token, attempt, int(has_failed)])
        if reply[0] == b"ok":
            return Released(int(reply[1]), int(reply[2]))
        outcome = _writing(reply)
        assert isinstance(outcome, Ended | Fenced | Lost)
        return outcome

    # From outside the holder

    async def close(
        self, generation_id: str, end: End, *, idle_ms: int | None = None, by: str = ""
    ) -> EventId | Ended | Absent | Held:
        """End a generation from outside its holder, unless it has ended.

        Args:
            idle_ms: end it only if no worker has held it for this time; otherwise return `Held`.
            by: who asked for it, and a space and the name of the node if there is one.

        Returns:
            the id of the `end` event that was written, or why none was written.
        """
        idle = "" if idle_ms is None else idle_ms
        reply = await self._run(
            "close", generation_id, [end.status, encode(end), self.retention_ms, idle, by]
        )
        match reply[0]:
            case b"ok":
                return parse_event_id(reply[1])
            case b"ended":
                return Ended()
            case b"absent":
                return Absent()
        return Held(0)

    async def close_many(self, ids: Sequence[str], end: End, *, by: str = "") -> None:
        """Write one end to many generations in one round trip; ended ones do not change."""
        args = [end.status, encode(end), self.retention_ms, "", by]
        await self._run_many("close", [(keys_of(generation_id), args) for generation_id in ids])

    async def seal(self, generation_id: str) -> str:
        """Seal an absent generation: later writes are refused.

        Returns:
            `sealed`, or the status of a generation that exists.
        """
        reply = await self._run("seal", generation_id, [self.retention_ms])
        return "sealed" if reply[0] == b"sealed" else str(reply[1].decode())

    async def delete(self, generation_id: str) -> bool:
        """Replace a generation by a seal; False: the generation is absent.

        The next write stops its holder, and every node drops its copy. Indexes and other records
        still name the generation: shared/erasure/generations.py does the rest.
        """
        # On a cluster the channel has a slot of its own, so the script cannot publish there. Nodes
        # are told before as well: the caller may die just after the script.
        is_sharded = self.scripts.is_sharded
        if is_sharded:
            await self._tell_shard(generation_id)
        told = "" if is_sharded else generation_id
        reply = await self._run("delete", generation_id, [self.retention_ms, told])
        if reply[0] != b"sealed":
            return False
        if is_sharded:
            await self._tell_shard(generation_id)
        with translated():
            # No key of the script: most generations have no pieces, and a script that names an
            # absent key has to wait while a cluster moves its slot.
            for key in (keys.request, keys.readers, keys.timeline, keys.audio):
                await self.redis.unlink(key(generation_id))
        if reply[1]:
            call = owner_bytes.deleted(reply[1].decode(), generation_id, self.retention_ms)
            await self.scripts.run(owner_bytes.SCRIPT, *call)
        return True

    async def _tell_shard(self, generation_id: str) -> None:
        with translated():
            command: Any = self.redis.execute_command
            await command("SPUBLISH", keys.DELETED, generation_id)

    async def attach_readers(self, generation_id: str, node: str) -> bool:
        """Record that `node` has readers, to be repeated every 3 s; False: it has ended."""
        reply = await self.scripts.run("attach", readers_of(generation_id), [node, 0])
        return bool(reply[0] == b"ok")

    async def detach_readers(self, generation_id: str, node: str) -> None:
        """Record that the last reader of `node` has gone: the grace begins."""
        await self.scripts.run("attach", readers_of(generation_id), [node, 1])

    async def publish(self, channel: str, data: bytes) -> int:
        """Publish on a channel, and return the number of subscribers that got the message."""
        with translated():
            return int(await self.redis.publish(channel, data))

    # Helpers

    async def _run(self, name: str, generation_id: str, args: Sequence[Any]) -> list[Any]:
        return list(await self.scripts.run(name, keys_of(generation_id), args))

    async def _run_many(self, name: str, calls: Sequence[Call]) -> None:
        await self.scripts.run_all([(name, call) for call in calls])

    def _append(self, batch: Append) -> Call:
        return keys_of(batch.generation_id), [
            batch.token, batch.attempt, batch.before_seq,
            self.lease_ms if batch.pushes_lease else "",
            batch.status or "", self.retention_ms,
            str(batch.before), *batch.entries,
        ]  # fmt: skip


def _writing(reply: Any) -> Writing:
    outcome = parse_writing(reply)
    assert not isinstance(outcome, Unavailable)  # `_run` has raised it
    return outcome
