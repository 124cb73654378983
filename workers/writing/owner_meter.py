"""Counts the stored bytes of one running generation against its owner, and the tokens at its end.

A long answer is counted at each `OWNER_COUNT_STEP_BYTES` of growth, before more is read from the
backend. A short answer is counted once, in the call that takes it off the queue. The same call
settles the tokens, if the owner has limits (shared/queue/allowance.py). If the owner is far past
the limit, a growing answer ends with an error. Knows no queue and no backend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.errors import BackendError, Unavailable
from shared.log import owner_bytes
from shared.log.events import Counts, End, encode_counts
from shared.log.ids import EventId
from shared.log.log_reader import read_log
from shared.log.owner_bytes import (
    ENDED_AT,
    OWNER_COUNT_STEP_BYTES,
    SCRIPT,
    GenerationBytes,
    request_bytes,
)
from shared.log.records import Begun
from shared.log.store import Store
from shared.queue.allowance import MARK, SETTLE, settlement
from shared.redis import keys
from shared.redis.client import translated
from shared.redis.scripts import Call
from shared.redis.shards import serves


class OwnerMeter:
    """The byte count of one generation, kept by its holder.

    Attributes:
        fields: of meta, as the begin returned them.
    """

    def __init__(self, store: Store, begun: Begun) -> None:
        self.fields = fields = begun.fields
        self._store = store
        self._meta = begun.meta
        self._is_counted = b"wait" not in fields  # lines of a batch have this field
        self._is_limited = MARK.encode() in fields
        self._request = request_bytes(
            *(fields.get(name, b"") for name in (b"request", b"metadata", b"prompt"))
        )
        self._counted_bytes = 0

    async def note(self, log_bytes: int) -> None:
        """Count the log if it has grown by `OWNER_COUNT_STEP_BYTES`.

        Skips the count if Redis does not answer.

        Raises:
            BackendError: `owner_full`: the owner is far past its limit.
        """
        if not self._is_counted or log_bytes - self._counted_bytes < OWNER_COUNT_STEP_BYTES:
            return
        self._counted_bytes = log_bytes
        settings = self._store.settings
        call = owner_bytes.unfinished(self._kept(log_bytes), settings)
        try:
            total = int(await self._store.scripts.run(SCRIPT, *call))
        except Unavailable:
            return  # the next step counts the whole log
        if total > ENDED_AT * settings.owner_bytes_max:
            message = owner_bytes.far_past_message(total, settings)
            raise BackendError("owner_full", message, retryable=False)

    async def note_spent(self, attempt: int, end: End | None, spent: Counts | None) -> None:
        """Note the tokens for the usage of the owner, where the end does not have them.

        Args:
            end: as this worker has written it; None: it was written elsewhere.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        is_known = end is not None and end.usage is not None
        if self._store.settings.usage_days and spent is not None and not is_known:
            names = [keys.meta(self._meta.generation_id)]
            await self._store.scripts.run("spend", names, [attempt, encode_counts(spent)])

    def final_records(
        self, log_bytes: int, spent: Callable[[], Counts | None]
    ) -> list[tuple[str, Call]]:
        """Return the calls that record what the ended generation keeps and has used.

        Args:
            spent: returns the tokens of the answer so far; None: it took none.
        """
        found: list[tuple[str, Call]] = []
        if self._is_counted:
            kept = self._kept(log_bytes)
            found.append((SCRIPT, owner_bytes.ended(kept, self._store.retention_ms)))
        if self._is_limited:
            usage = spent()
            tokens = 0 if usage is None else usage.prompt_tokens + usage.completion_tokens
            call = settlement(self._meta.owner, self._meta.generation_id, tokens)
            found.append((SETTLE, call))
        return found

    def _kept(self, log_bytes: int) -> GenerationBytes:
        return GenerationBytes(self._meta.owner, self._meta.generation_id, log_bytes, self._request)


async def late_records(store: Store, generation_id: str) -> list[tuple[str, Call]]:
    """Return the call that records the log of a generation that ended under another worker.

    That worker may have left without a record of the log's size. The log is read for it.

    Raises:
        Unavailable: Redis did not answer in time, or the shard of the owner is away.
    """
    with translated():
        found: Any = await store.redis.hmget(keys.meta(generation_id), ["owner", "wait"])  # type: ignore[misc]
    owner, wait = found
    if not owner or wait:
        return []
    if not serves(store.redis, keys.owner_bytes(owner.decode())):
        # The entry is claimed again after each lease: the log is not read for a call that fails.
        raise Unavailable("the shard of the owner is away")
    size = 0

    def add(_: EventId, raw: bytes) -> None:
        nonlocal size
        size += len(raw)

    await read_log(store, generation_id, add)
    kept = GenerationBytes(owner.decode(), generation_id, size, 0)  # the request stays counted
    return [(SCRIPT, owner_bytes.ended(kept, store.retention_ms))]
