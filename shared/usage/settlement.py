"""Counts the usage of generations that have ended: from their meta and log into the ledger.

First the settlement writes the audit records (shared/audit/writer.py) of models that have an audit.

The script `leave` takes an ended generation out of the queue's indexes of waiting and running
generations and puts it into the index `unsettled`, in one step. So an ended generation whose usage
is not counted is always in one of these indexes, whichever process dies. A settlement reads the
usage of the generation, counts it in the ledger, and only then removes the generation from the
index. If the process dies in between, the next settlement repeats both steps; the ledger counts
each generation once.

The facts are fields that the scripts on `{id}` have written with the end: its status, its `usage`,
and for how long workers held the generation. If the end has no counts, they are counted from the
log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from shared.audit.writer import open_audit
from shared.config.settings import Settings
from shared.errors import FilesUnavailable
from shared.log.events import Counts, End, decode_known
from shared.log.records import ENDED
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts
from shared.redis.shards import serves
from shared.usage.counting import count_log
from shared.usage.figures import figures_of
from shared.usage.ledger import Fact, Ledger, ledger_keys

PAGE = 200  # generations of one step
PAGES_PER_LOOK = 25
FIELDS = (
    b"status", b"owner", b"model", b"created", b"ended", b"end", b"held_ms", b"spent", b"spent_at",
)  # fmt: skip
_counts = msgspec.json.Decoder(Counts)


class Settlement:
    """Counts ended generations on one Redis.

    Every coroutine may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
    """

    def __init__(self, redis: Client, store: Store, settings: Settings) -> None:
        self.redis = redis
        self.store = store
        self.ledger = Ledger(redis, settings)
        self._scripts = Scripts(redis)
        self._audit = open_audit(store, settings)

    async def look(self, tag: str) -> int:
        """Count the unsettled generations of a partition, and return how many were counted.

        Of a cluster, those stay in the index whose shard, or whose owner's shard, does not answer.

        Args:
            tag: of the partition.
        """
        counted = start = 0
        for _ in range(PAGES_PER_LOOK):
            with translated():
                found = await self.redis.zrange(
                    keys.unsettled(tag), start, start + PAGE - 1, withscores=True
                )
            scores = {raw.decode(): score for raw, score in found}
            ready = [name for name in scores if serves(self.redis, keys.meta(name))]
            facts = await self._facts(ready)
            missed = await self._write_audit(facts)
            late = [
                fact
                for fact in facts
                if fact.generation_id in missed or not serves(self.redis, *ledger_keys(fact.owner))
            ]
            counted += await self.ledger.settle([fact for fact in facts if fact not in late])
            done = set(ready) - {fact.generation_id for fact in late}
            if done:
                words = [word for name in done for word in (name, f"{scores[name]:.0f}")]
                await self._scripts.run("usage_done", [keys.unsettled(tag)], words)
            start += len(found) - len(done)
            if len(found) < PAGE:
                break
        return counted

    async def settle(self, ids: Sequence[str]) -> int:
        """Count those of `ids` that have ended, and return how many changed the sums.

        Generations that have not ended, or that are gone, are left out. The script `leave` puts
        a generation into the index again when it ends.

        Raises:
            FilesUnavailable: an audit record could not be written.
        """
        facts = await self._facts(ids)
        if await self._write_audit(facts):
            raise FilesUnavailable("the audit record cannot be written now")
        return await self.ledger.settle(facts)

    async def _write_audit(self, facts: Sequence[Fact]) -> set[str]:
        """Write audit records, and return the generations that still lack one."""
        if self._audit is None:
            return set()
        return await self._audit.write({fact.generation_id: fact.model for fact in facts})

    async def _facts(self, ids: Sequence[str]) -> list[Fact]:
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for generation_id in ids:
                pipeline.hmget(keys.meta(generation_id), list(FIELDS))
            replies = await pipeline.execute() if ids else []
        facts = []
        for generation_id, reply in zip(ids, replies, strict=True):
            fields = {name: raw or b"" for name, raw in zip(FIELDS, reply, strict=True)}
            # The meta of a batch has no model: its lines are counted.
            if fields[b"status"].decode() in ENDED and fields[b"model"]:
                facts.append(await self._fact(generation_id, fields))
        return facts

    async def _fact(self, generation_id: str, fields: Mapping[bytes, bytes]) -> Fact:
        counts = await self._counts(generation_id, fields)
        ended_ms, spent_ms = int(fields[b"ended"] or 0), int(fields[b"spent_at"] or 0)
        return Fact(
            owner=fields[b"owner"].decode(),
            generation_id=generation_id,
            written_ms=max(ended_ms, spent_ms),
            created_ms=int(fields[b"created"] or 0),
            model=fields[b"model"].decode(),
            figures=figures_of(counts, int(fields[b"held_ms"] or 0)),
        )

    async def _counts(self, generation_id: str, fields: Mapping[bytes, bytes]) -> Counts | None:
        """Return the counts of the worker after the end, those of the end, or those of the log."""
        with suppress(msgspec.MsgspecError):  # absent, or of a newer version
            return _counts.decode(fields[b"spent"])
        end = decode_known(fields[b"end"])
        if isinstance(end, End) and end.usage is not None:
            return end.usage
        return await count_log(self.store, generation_id)
