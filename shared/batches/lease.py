"""The lease of one batch: all changes that only its holder may make.

The lease is the token of the batch's own log, like a worker's token of a generation. Invariant:
each change is one script that compares the token first, so a replaced holder changes nothing. Every
call may be repeated.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from shared.batches.record import Batch, FailedLine, batch_keys, parse_batch
from shared.config.settings import Settings
from shared.errors import LeaseLost, Unavailable
from shared.log.events import End, Event, encode
from shared.log.ids import EventId
from shared.log.records import Begun, Ended, Ok
from shared.log.store import Store
from shared.redis import keys
from shared.redis.client import Client, translated

# Each slice of a batch is an attempt, and the end of a slice is not a failure.
ENDLESS = 10**9


class InFlightLine(NamedTuple):
    """A line in flight: its place in the input, and the number of earlier tries."""

    line: int
    offset: int
    length: int
    tries: int = 0


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Results of lines, which count from this commit on.

    Attributes:
        name: different from the name of the commit before.
        parts: names of the objects with the results, written just before.
        done: numbers of lines that leave the flight.
        again: alternately a line number and its flight: lines to try once more.
        dead: dead letters, JSON.
        completed, failed: numbers of lines.
        usage: prompt, completion and total tokens.
        events: for the log, JSON.
        before, line, offset: the cursor before and after the commit, or 0 for no move. If the
            cursor moves, `done` holds the lines between.
    """

    name: str
    parts: Sequence[str] = ()
    done: Sequence[str] = ()
    again: Sequence[str] = ()
    dead: Sequence[str] = ()
    completed: int = 0
    failed: int = 0
    usage: tuple[int, int, int] = (0, 0, 0)
    model: str = ""
    events: Sequence[str] = ()
    before: int = 0
    line: int = 0
    offset: int = 0


def log_store(redis: Client, settings: Settings) -> Store:
    """Return the store of the batches' own logs, without a bound on attempts."""
    return Store(redis, replace(settings, attempts_max=ENDLESS))


class BatchLease:
    """The lease of one holder on one batch.

    Every method may raise `LeaseLost` (another process holds the batch, or Redis lost changes of
    this holder) and `Unavailable` (Redis did not answer in time).
    """

    def __init__(self, store: Store, batch_id: str, token: str, start: EventId) -> None:
        self.store = store
        self.batch_id = batch_id
        self.token = token
        self.attempt = start.attempt
        self.top = str(start)  # the newest entry of the log; only this holder writes there
        self.confirmed_s = time.monotonic()  # when the lease was last known to be held

    @classmethod
    async def begin(cls, store: Store, batch_id: str, holder: str) -> BatchLease | None:
        """Take the lease; None: another process holds it, or the batch is absent or has ended.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        token = secrets.token_hex(12)
        begun = await store.begin(batch_id, token, holder)
        if not isinstance(begun, Begun):
            return None
        return cls(store, batch_id, token, begun.start[0])

    async def renew(self) -> bool:
        """Extend the lease; False: the batch has ended."""
        sent_s = time.monotonic()
        (outcome,) = await self.store.renew_many([(self.batch_id, self.token, self.attempt, False)])
        if isinstance(outcome, Unavailable):
            raise outcome
        if isinstance(outcome, Ended):
            return False
        if not isinstance(outcome, Ok):
            raise LeaseLost(f"the batch is {type(outcome).__name__.lower()}")
        self.confirmed_s = sent_s
        return True

    async def confirm(self) -> None:
        """Make sure that the lease is still held, before work that no token protects.

        Asks Redis only if no call has succeeded within half a lease.
        """
        is_fresh = time.monotonic() - self.confirmed_s < self.store.lease_ms / 2000
        if not is_fresh and not await self.renew():
            raise LeaseLost("the batch has ended")

    async def release(self) -> None:
        """Give the lease back, so that the next holder can begin at once."""
        await self.store.release(self.batch_id, self.token, self.attempt, has_failed=False)

    async def load(self) -> Batch:
        """Return the current record of the batch."""
        with translated():
            fields = await self.store.redis.hgetall(keys.batch(self.batch_id))  # type: ignore[misc]
        if not fields:
            raise LeaseLost("the batch is gone")
        return parse_batch(self.batch_id, fields)

    async def flight(self) -> list[InFlightLine]:
        """Return the lines in flight, in the order of the input."""
        with translated():
            found = await self.store.redis.hgetall(keys.batch_flight(self.batch_id))  # type: ignore[misc]
        return sorted(
            InFlightLine(int(line), *(int(word) for word in words.split()))
            for line, words in found.items()
        )

    async def parts(self) -> list[str]:
        """Return the names of the objects with results, in the order of their commits."""
        with translated():
            found = await self.store.redis.lrange(keys.batch_parts(self.batch_id), 0, -1)  # type: ignore[misc]
        return [part.decode() for part in found]

    async def take(
        self, lines: Sequence[InFlightLine], *, before: int, line: int, offset: int
    ) -> bool:
        """Move the cursor past the next lines, which are then in flight.

        Args:
            before: the cursor now, in lines; blank lines count.
            line, offset: the cursor afterwards.

        Returns:
            False: the batch is no longer in progress.
        """
        words = [word for flying in lines for word in (str(flying.line), flight_words(flying))]
        return await self._do("batch_take", [before, line, offset, *words])

    async def commit(self, commit: Commit) -> None:
        """Make the results of lines count, in one step."""
        await self._do("batch_commit", [msgspec.json.encode(commit)])

    async def move(
        self,
        before: str,
        after: str,
        *,
        fields: Mapping[str, str] | None = None,
        events: Sequence[Event] = (),
        kept_s: float = 0.0,
    ) -> bool:
        """Move the batch to its next status; False: its status is not `before`.

        Args:
            fields: of the record.
            events: for the log; a final status needs an `End` as the last one.
            kept_s: until the record of an ended batch expires.
        """
        words = [word for pair in (fields or {}).items() for word in pair]
        changes = {"events": [encode(event).decode() for event in events], "fields": words}
        end = next((event.status for event in events if isinstance(event, End)), "")
        assert not end or isinstance(events[-1], End)
        args = [before, after, msgspec.json.encode(changes), end]
        return await self._do("batch_move", [*args, self.store.retention_ms, round(kept_s * 1000)])

    async def _do(self, name: str, args: Sequence[Any]) -> bool:
        own, sent_s = [self.token, self.attempt, self.store.lease_ms, self.top], time.monotonic()
        names = batch_keys(self.batch_id)
        if name == "batch_take":
            names = names[:4]  # without the results, which may be absent
        reply = await self.store.scripts.run(name, names, [*own, *args])
        match reply[0]:
            case b"ok":
                self.confirmed_s, self.top = sent_s, reply[1].decode()
                return True
            case b"status":
                return False
            case b"moved":
                raise LeaseLost("Redis has gone back: the batch is not as it was known here")
        raise LeaseLost(f"the batch is {reply[0].decode()}")


def flight_words(flying: InFlightLine) -> str:
    """Return the value of a line in the flight hash."""
    return f"{flying.offset} {flying.length} {flying.tries}"


def encode_dead_letter(dead: FailedLine) -> str:
    """Return the JSON of a dead letter."""
    return msgspec.json.encode(dead).decode()
