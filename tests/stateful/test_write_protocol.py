"""The write protocol on a real server that loses data: any interleaving of workers.

Each step of a worker is split: the call runs on the server, and its reply arrives later or never.
Leases expire at once, so any worker may take over at any time. Redis returns to any earlier state
with another history. A cancel may come at any time.

No state may have:
    ABA     an event id that was visible with two contents
    MIX     entries of one attempt by two writers
    SEQ     a log whose seqs are not 1, 2, 3, …
    SPLICE  an entry after text that its writer neither wrote nor continued
    END     two ends, or an entry after the end
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.events import End, Token
from shared.log.ids import START, EventId
from shared.log.records import Append, Begun, Entry
from shared.log.store import Store
from shared.queue.endings import cancel
from shared.redis import keys
from shared.redis.client import Client
from shared.redis.connections import connect
from tests.support.redis_server import RedisServer
from workers.writing.outbox import RESTORE_WITHIN_S, Outbox, RestoreBatch

GENERATION = "gen_machine0"
WORKERS = ("A", "B")
LOSSES_MAX = 2
EXPIRED_AT_ONCE_S = 0.0004  # becomes a lease of 0 ms
TIMES = (b"lease", b"held_ms", b"held", b"created", b"waiting", b"ended")  # fields of meta


@dataclass
class Writer:
    """One worker's state of the generation, with a call that may be in flight."""

    name: str
    outbox: Outbox | None = None
    answer: Any = None
    has_answer: bool = False
    pieces: int = 0
    begins: int = 0
    clock_s: float = 0.0
    wrote: dict[EventId, list[Entry]] = field(default_factory=dict)  # the log before each entry


@dataclass
class Snapshot:
    """A state of one generation in Redis, to return to."""

    meta: dict[bytes, bytes]
    log: list[Any]

    def differs_from(self, other: Snapshot) -> bool:
        """Whether the states differ in more than times.

        Two steps within a millisecond give equal times, so a comparison of times would make the
        number of snapshots depend on the speed of the machine.
        """
        return (self.log, self._without_times()) != (other.log, other._without_times())

    def _without_times(self) -> dict[bytes, bytes]:
        return {name: b"" if name in TIMES else value for name, value in self.meta.items()}


class WriteProtocol(RuleBasedStateMachine):
    server: RedisServer

    @initialize()
    def create(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)  # the checks of debug mode double the time of these small calls
        self.redis: Client
        self.connect()
        fields = {"model": "demo", "request": "{}", "owner": "o", "priority": "interactive"}
        self.run(self.store.create(GENERATION, fields, may_be_lost=False))
        self.writers = {name: Writer(name) for name in WORKERS}
        self.snapshots: list[Snapshot] = []
        self.losses = 0
        self.seen: dict[EventId, bytes] = {}
        self.makers: dict[EventId, str] = {}
        self.look()

    def connect(self) -> None:
        """Open `redis` and `store` on an empty server."""
        config = Settings(
            redis_url=self.server.url, lease_s=EXPIRED_AT_ONCE_S, attempts_max=1_000_000
        )
        self.redis = connect(config)
        self.store = Store(self.redis, config)
        self.run(self.redis.flushall())

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)

    # Workers

    @rule(name=st.sampled_from(WORKERS), pushes_lease=st.booleans(), writes_start=st.booleans())
    def begin(self, name: str, pushes_lease: bool, writes_start: bool) -> None:
        writer = self.writers[name]
        if writer.outbox is not None and writer.outbox.stopped is None:
            return
        writer.begins += 1
        token = f"{name}{writer.begins}"
        begun = self.run(self.store.begin(GENERATION, token, name, writes_start=writes_start))
        if not isinstance(begun, Begun):
            return
        log = self.run(self.store.page(GENERATION, START, 100_000))
        found = [entry for entry in log if entry[0] < begun.start[0]]
        writer.outbox = Outbox(
            GENERATION,
            token,
            found=found,
            start=begun.start,
            fields=begun.fields,
            now_s=writer.clock_s,
            lease_every_s=0.0 if pushes_lease else 1e9,
        )
        writer.has_answer = False
        if writes_start:
            writer.wrote[begun.start[0]] = found
            self.makers[begun.start[0]] = f"{name}:{token}"
        self.look()

    @rule(
        name=st.sampled_from(WORKERS),
        kind=st.sampled_from(("answered", "answered", "lost", "under way")),
    )
    def write(self, name: str, kind: str) -> None:
        """A worker adds an event and sends its entries; the reply arrives now, later or never."""
        writer = self.writers[name]
        outbox = writer.outbox
        if outbox is None or outbox.stopped is not None:
            return
        if writer.has_answer:
            return self._answer(writer, is_lost=kind == "lost")
        if outbox._status is None:
            writer.pieces += 1
            outbox.push(Token(f"{name}{writer.pieces} "))
        self._call(writer)
        if kind != "under way" and writer.has_answer:
            self._answer(writer, is_lost=kind == "lost")

    @rule(name=st.sampled_from(WORKERS))
    def send_again(self, name: str) -> None:
        """A worker sends lost or unanswered entries again, without a new one."""
        writer = self.writers[name]
        if writer.outbox is None:
            return
        if writer.has_answer:
            return self._answer(writer, is_lost=False)
        self._call(writer)
        if writer.has_answer:
            self._answer(writer, is_lost=False)

    @rule(
        name=st.sampled_from(WORKERS),
        what=st.sampled_from(("finish", "renew", "sleep", "release", "cancel", "pass")),
    )
    def rarely(self, name: str, what: str) -> None:
        """Rare operations share one rule, so that writes stay frequent."""
        if what != "pass":
            getattr(self, f"_{what}")(name)

    def _finish(self, name: str) -> None:
        outbox = self.writers[name].outbox
        if outbox is not None and not outbox.stopped and outbox._status is None:
            outbox.push(End("completed", "stop"))
            self.send_again(name)

    def _answer(self, writer: Writer, *, is_lost: bool) -> None:
        assert writer.outbox is not None
        writer.has_answer = False
        outcome = Unavailable("no answer") if is_lost else writer.answer
        writer.outbox.apply_outcome(outcome, writer.clock_s)

    def _call(self, writer: Writer) -> None:
        assert writer.outbox is not None
        step = writer.outbox.take(writer.clock_s)
        if step is None:
            return
        self._note(writer)
        if isinstance(step, Append):
            writer.answer = self.run(self.store.append_many([step]))[0]
        else:
            assert isinstance(step, RestoreBatch)
            outbox = writer.outbox
            writer.answer = self.run(
                self.store.restore(
                    GENERATION, outbox.token, outbox.attempt, step.top, step.fields, step.entries
                )
            )
        writer.has_answer = True
        self.look()

    def _note(self, writer: Writer) -> None:
        outbox = writer.outbox
        assert outbox is not None
        for n, (event_id, _) in enumerate(outbox.log):
            if event_id.attempt == outbox.attempt and event_id not in writer.wrote:
                writer.wrote[event_id] = list(outbox.log[:n])
                self.makers[event_id] = f"{writer.name}:{outbox.token}"

    def _renew(self, name: str) -> None:
        writer = self.writers[name]
        outbox = writer.outbox
        if outbox is None or outbox.stopped is not None or writer.has_answer:
            return
        holder = (GENERATION, outbox.token, outbox.attempt, False)
        outcome = self.run(self.store.renew_many([holder]))[0]
        outbox.apply_renewal(outcome, writer.clock_s, writer.clock_s)
        self.look()

    def _sleep(self, name: str) -> None:
        """A worker pauses for longer than the time in which it may restore."""
        self.writers[name].clock_s += RESTORE_WITHIN_S + 1

    def _release(self, name: str) -> None:
        writer = self.writers[name]
        outbox = writer.outbox
        if outbox is None or outbox.stopped is not None or writer.has_answer:
            return
        self.run(self.store.release(GENERATION, outbox.token, outbox.attempt, has_failed=False))
        outbox.abandon("fenced")
        self.look()

    # Redis and the rest of the world

    def _cancel(self, name: str) -> None:
        self.run(cancel(self.store, GENERATION))
        self.look()

    @precondition(lambda self: len(self.snapshots) > 3 and self.losses < LOSSES_MAX)
    @rule(steps=st.integers(1, 6))
    def lose_tail(self, steps: int) -> None:
        """Redis loses its last steps and returns with another history."""
        self.losses += 1
        back_to = max(0, len(self.snapshots) - 1 - steps)
        snapshot = self.snapshots[back_to]
        del self.snapshots[back_to + 1 :]
        self.run(self._restore_state(snapshot))
        self.look()

    @precondition(lambda self: len(self.snapshots) > 3 and self.losses < LOSSES_MAX)
    @rule()
    def lose_everything(self) -> None:
        self.losses += 1
        self.run(self._restore_state(Snapshot({}, [])))
        self.look()

    async def _restore_state(self, snapshot: Snapshot) -> None:
        await self.redis.delete(keys.meta(GENERATION), keys.log(GENERATION))
        if snapshot.meta:
            await self.redis.hset(keys.meta(GENERATION), mapping=snapshot.meta)  # type: ignore[misc]
        for entry_id, fields in snapshot.log:
            await self.redis.xadd(keys.log(GENERATION), fields, id=entry_id)
        await self.redis.execute_command("DEBUG", "CHANGE-REPL-ID")
        # A restart or a failover takes longer than 1 ms, on which attempt numbers rely.
        highest = max((event_id.attempt for event_id in self.seen), default=0)
        while await self.store.now_ms() <= highest:
            pass

    # Invariants

    def look(self) -> None:
        """Check the log that any reader could see now."""
        meta = self.run(self.redis.hgetall(keys.meta(GENERATION)))
        raw_log = self.run(self.redis.xrange(keys.log(GENERATION)))
        snapshot = Snapshot(meta, raw_log)
        if not self.snapshots or snapshot.differs_from(self.snapshots[-1]):
            self.snapshots.append(snapshot)
        log = self.run(self.store.page(GENERATION, START, 100_000))
        for n, (event_id, raw) in enumerate(log, 1):
            assert event_id.seq == n, f"SEQ: {event_id} stands at {n}"
            assert self.seen.setdefault(event_id, raw) == raw, f"ABA: {event_id} has two contents"
            self._check_writer(event_id, log[: n - 1])
        self._check_attempts(log)
        ends = [event_id for event_id, raw in log if json.loads(raw)["type"] == "end"]
        assert ends in ([], [log[-1][0]] if log else []), f"END: {ends}"

    def _check_writer(self, event_id: EventId, before: list[Entry]) -> None:
        for writer in self.writers.values():
            if event_id in writer.wrote:
                assert writer.wrote[event_id] == before, f"SPLICE: before {event_id}"

    def _check_attempts(self, log: list[Entry]) -> None:
        makers: dict[int, set[str]] = {}
        for event_id, _ in log:
            if event_id in self.makers:
                makers.setdefault(event_id.attempt, set()).add(self.makers[event_id])
        for attempt, names in makers.items():
            assert len(names) == 1, f"MIX: attempt {attempt} by {names}"
        attempts = [event_id.attempt for event_id, _ in log]
        assert attempts == sorted(attempts), f"attempts go down: {attempts}"

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.redis.aclose())
            self.loop.close()


def test_write_protocol_survives_any_interleaving() -> None:
    with RedisServer(options={"enable-debug-command": "yes"}) as server:
        WriteProtocol.server = server
        run_state_machine_as_test(
            WriteProtocol,
            # Appends of any token, of a stranger, or behind a gap are found in 7 to about 400.
            settings=settings(max_examples=400, stateful_step_count=30, deadline=None),
        )
