"""What one running generation keeps, counted against its owner while it grows.

A long answer is noted each `STEP_BYTES`, before the backend is read on; a short one at its end
only, with what takes it off the queue. Of an owner who is far past the bound, the answers that grow
are ended.
Knows no queue and no backend.
"""

from __future__ import annotations

from shared.errors import BackendError, Unavailable
from shared.log import owner_bytes
from shared.log.owner_bytes import ENDED_AT, SCRIPT, GenerationBytes, request_bytes
from shared.log.records import Begun
from shared.log.store import Store
from shared.redis.scripts import Call

STEP_BYTES = 65_536  # of a log; so much of each answer that runs may be uncounted


class OwnerMeter:
    """The count of one generation in the hands of its holder."""

    def __init__(self, store: Store, begun: Begun) -> None:
        fields = begun.fields
        self._store = store
        self._meta = begun.meta
        self._is_counted = b"wait" not in fields  # as lines of a batch have it
        self._request = request_bytes(
            *(fields.get(name, b"") for name in (b"request", b"metadata", b"prompt"))
        )
        self._noted = 0

    async def note(self, log_bytes: int) -> None:
        """Note the log where it has grown by a step; an outage is waited out by nobody.

        Raises:
            BackendError: `owner_full`, its owner keeps too much by far.
        """
        if not self._is_counted or log_bytes - self._noted < STEP_BYTES:
            return
        self._noted = log_bytes
        settings = self._store.settings
        call = owner_bytes.unfinished(self._kept(log_bytes), settings)
        try:
            total = int(await self._store.scripts.run(SCRIPT, *call))
        except Unavailable:
            return  # the next step says it all
        if total > ENDED_AT * settings.owner_bytes_max:
            raise BackendError(
                "owner_full",
                f"this owner's prompts and answers take {total} bytes, and "
                f"{settings.owner_bytes_max} may be kept: delete some, or wait until they expire",
                retryable=False,
            )

    def last(self, log_bytes: int) -> Call | None:
        """Return the call that notes it at its end; None: it is not counted."""
        if not self._is_counted:
            return None
        return owner_bytes.ended(self._kept(log_bytes), self._store.retention_ms)

    def _kept(self, log_bytes: int) -> GenerationBytes:
        return GenerationBytes(self._meta.owner, self._meta.generation_id, log_bytes, self._request)
