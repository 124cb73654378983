"""The right to run one batch: everything that its holder, and nobody else, may do to it.

A lease is the token of the batch's own log, as a worker has one of a generation's. Each call is one
script that compares the token before it changes anything, so a holder that was replaced, or slept,
changes nothing. Every call may be repeated.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from shared.batches.record import Batch, DeadLetter, batch_keys, parse_batch
from shared.config.settings import Settings
from shared.errors import LeaseLost, Unavailable
from shared.log.events import End, Event, encode
from shared.log.ids import EventId
from shared.log.records import Begun, Ended, Ok
from shared.log.store import Store
from shared.redis.client import Client, translated

ENDLESS = 10**9  # slices are attempts here: that one ended is no failure


class InFlightLine(NamedTuple):
    """A line in flight: where it stands in the input, and how often it has been asked before."""

    line: int
    offset: int
    length: int
    tries: int = 0


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """Results that are to count.

    Attributes:
        name: of this commit, different from the one before it.
        parts: objects that hold the results; the last thing before this was to write them.
        done: lines that leave the flight.
        again: line and flight by turns: to be asked once more.
        dead: dead letters, JSON.
        usage: prompt, completion and total tokens.
        events: what the log says of it, JSON.
        before, line, offset: 0, or the cursor's place and its new one; `done` is what lies between.
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
    """Return the store of the batches' own logs: any number of slices may hold one in turn."""
    return Store(redis, replace(settings, attempts_max=ENDLESS))


class BatchLease:
    """One holder's hand on one batch.

    Every method raises `LeaseLost` when it is no longer the holder, or Redis has gone back behind
    what it knows; and `Unavailable`.
    """

    def __init__(self, store: Store, batch_id: str, token: str, start: EventId) -> None:
        self.store = store
        self.batch_id = batch_id
        self.token = token
        self.attempt = start.attempt
        self.top = str(start)  # of the log: nobody else writes there
        self.confirmed_s = time.monotonic()  # it was the holder then, at least
        self._keys = batch_keys(batch_id)

    @classmethod
    async def begin(cls, store: Store, batch_id: str, holder: str) -> BatchLease | None:
        """Become the holder; None: somebody else is, or there is nothing to hold.

        Raises:
            Unavailable.
        """
        token = secrets.token_hex(12)
        begun = await store.begin(batch_id, token, holder)
        if not isinstance(begun, Begun):
            return None
        return cls(store, batch_id, token, begun.start[0])

    async def renew(self) -> bool:
        """Push the lease on; False: the batch has ended."""
        sent_s = time.monotonic()
        (outcome,) = await self.store.renew_many([(self.batch_id, self.token, self.attempt)])
        if isinstance(outcome, Unavailable):
            raise outcome
        if isinstance(outcome, Ended):
            return False
        if not isinstance(outcome, Ok):
            raise LeaseLost(f"the batch is {type(outcome).__name__.lower()}")
        self.confirmed_s = sent_s
        return True

    async def confirm(self) -> None:
        """Make sure that it is still the holder, before it does what no token protects.

        Costs nothing where a call has just succeeded; a process that stood still meanwhile asks.
        """
        is_fresh = time.monotonic() - self.confirmed_s < self.store.lease_ms / 2000
        if not is_fresh and not await self.renew():
            raise LeaseLost("the batch has ended")

    async def release(self) -> None:
        """Let the next holder begin at once; nothing of the batch changes."""
        await self.store.release(self.batch_id, self.token, self.attempt, has_failed=False)

    async def load(self) -> Batch:
        """Return the batch as it stands."""
        with translated():
            fields = await self.store.redis.hgetall(self._keys[4])  # type: ignore[misc]
        if not fields:
            raise LeaseLost("the batch is gone")
        return parse_batch(self.batch_id, fields)

    async def flight(self) -> list[InFlightLine]:
        """Return what is in flight, in the order of the input."""
        with translated():
            found = await self.store.redis.hgetall(self._keys[5])  # type: ignore[misc]
        return sorted(
            InFlightLine(int(line), *(int(word) for word in words.split()))
            for line, words in found.items()
        )

    async def parts(self) -> list[str]:
        """Return the objects that hold results, in the order in which they were committed."""
        with translated():
            found = await self.store.redis.lrange(self._keys[6], 0, -1)  # type: ignore[misc]
        return [part.decode() for part in found]

    async def take(
        self, lines: Sequence[InFlightLine], *, before: int, line: int, offset: int
    ) -> bool:
        """Take the next lines; False: the batch is not in progress any more.

        Args:
            before: the cursor as it is, in lines; empty ones count.
            line, offset: where it goes.
        """
        words = [word for one in lines for word in (str(one.line), flight_words(one))]
        return await self._do("batch_take", [before, line, offset, *words])

    async def commit(self, commit: Commit) -> None:
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
        """Move the batch to its next status; False: it does not have the status `before`.

        Args:
            events: for the log; the last status comes with an `End`.
            kept_s: for how long an ended batch is known.
        """
        words = [word for pair in (fields or {}).items() for word in pair]
        said = {"events": [encode(event).decode() for event in events], "fields": words}
        end = next((event.status for event in events if isinstance(event, End)), "")
        assert not end or isinstance(events[-1], End)
        args = [before, after, msgspec.json.encode(said), end]
        return await self._do("batch_move", [*args, self.store.retention_ms, round(kept_s * 1000)])

    async def _do(self, name: str, args: Sequence[Any]) -> bool:
        own, sent_s = [self.token, self.attempt, self.store.lease_ms, self.top], time.monotonic()
        reply = await self.store.scripts.run(name, self._keys, [*own, *args])
        match reply[0]:
            case b"ok":
                self.confirmed_s, self.top = sent_s, reply[1].decode()
                return True
            case b"status":
                return False
            case b"moved":
                raise LeaseLost("Redis has gone back: the batch is not as it was known here")
        raise LeaseLost(f"the batch is {reply[0].decode()}")


def flight_words(one: InFlightLine) -> str:
    return f"{one.offset} {one.length} {one.tries}"


def letter(dead: DeadLetter) -> str:
    return msgspec.json.encode(dead).decode()
