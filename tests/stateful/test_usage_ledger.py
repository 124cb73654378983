"""Each generation counts once in the ledger, whichever process dies and whatever comes twice.

The machine runs the real scripts. A look is taken apart into its steps, as different processes that
stop, die and wake up would make them: read the index and the facts, count facts in the ledger, tell
the index. Any number of looks are under way, and each step may happen late, again, or never. In the
end one look runs to its end, and the sums must be those of the generations.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from shared.log.events import Counts, End, Usage, encode, encode_counts
from shared.queue.endings import cancel, cancel_many
from shared.queue.leaving import forget
from shared.redis import keys
from shared.usage.figures import Figures, figures_of
from shared.usage.ledger import Fact
from shared.usage.settlement import Settlement
from tests.support.examples import examples
from tests.support.generation import Holder, create, let_lapse, store_on, token
from tests.support.redis_server import RedisServer

COUNTS = st.builds(
    lambda prompt, completion: Counts(prompt, completion, prompt + completion),
    st.integers(0, 50),
    st.integers(0, 50),
)


ENDS = ("completed", "cancelled", "cancelled with many")


@dataclass
class Known:
    """What the test knows of a generation.

    Attributes:
        holder: the last worker that began it.
        cut: the attempt that was the last one before the end.
        has_left: a process has taken the ended generation off the queue.
        took: what it took, as far as its end or its last worker says; None: it goes on.
    """

    name: str
    holder: Holder | None = None
    seq: int = 0
    spends: int = 0
    tokens: int = 0
    usage: Counts | None = None
    took: Figures | None = None
    cut: int | None = None
    has_left: bool = False


@dataclass
class Look:
    """A look under way: what a process has read, and how far it has come."""

    facts: list[Fact]
    scores: list[tuple[str, float]]
    counted: bool = field(default=False)


class UsageMachine(RuleBasedStateMachine):
    running = Bundle("running")
    ended = Bundle("ended")
    looks = Bundle("looks")
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = Redis.from_url(self.url, protocol=2)
        self.run(self.redis.flushall())
        self.store = store_on(self.redis, retention_s=1_000, attempts_max=1_000)
        self.settlement = Settlement(self.redis, self.store, self.store.settings)
        self.known: list[Known] = []

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.run(self.finish())
        finally:
            self.run(self.redis.aclose())
            self.loop.close()

    async def finish(self) -> None:
        """The janitor finds what was not taken off the queue, and looks until nothing is left."""
        for known in self.known:
            if known.took is not None and not known.has_left:
                await forget(self.store, known.name)
        await self.settlement.look(keys.QUEUE)
        assert await self.redis.zcard(keys.unsettled()) == 0
        expected = Figures()
        for known in self.known:
            expected = expected.plus(known.took or Figures())
        assert (await self.sums())._replace(held_ms=0) == expected

    async def sums(self) -> Figures:
        # Each month is a key: years of them would be most of the time of this machine.
        today = datetime.now(UTC).date()
        first, last = today - timedelta(days=1), today + timedelta(days=1)
        ((rows),) = await self.settlement.ledger.rows(["alice"], first, last)
        total = Figures()
        for row in rows:
            total = total.plus(row.figures)
        return total

    # The life of generations

    @rule(
        target=running, tokens=st.integers(0, 3), report=st.none() | COUNTS, late=st.integers(0, 2)
    )
    def run_generation(self, tokens: int, report: Counts | None, late: int) -> Known:
        """A worker begins it and says some tokens; the server reports counts, and says more."""
        known = Known(f"gen_{len(self.known):010}")
        self.known.append(known)
        self.run(create(self.store, known.name))
        known.holder = self.run(Holder.begin(self.store, f"t-{known.name}", known.name))
        known.seq = known.holder.seq
        self.say(known, tokens)
        if report is not None and report.completion_tokens:
            raw = Usage(report.prompt_tokens, report.completion_tokens, report.total_tokens)
            self.run(known.holder.append(encode(raw), after=known.seq))
            known.seq, known.usage, known.tokens = known.seq + 1, report, 0
            self.say(known, late)
        return known

    def say(self, known: Known, tokens: int) -> None:
        if tokens:
            assert known.holder is not None
            self.run(known.holder.append(*[token(" river")] * tokens, after=known.seq))
            known.seq, known.tokens = known.seq + tokens, known.tokens + tokens

    @rule(known=running, is_released=st.booleans(), tokens=st.integers(0, 2))
    def take_over(self, known: Known, is_released: bool, tokens: int) -> None:
        """The worker drains, or dies and its lease runs out; another one goes on."""
        assert known.holder is not None
        if is_released:
            self.run(known.holder.release())
        else:
            self.run(let_lapse(self.store, known.name))
        name = f"t-{known.name}-{known.seq}"
        known.holder = self.run(Holder.begin(self.store, name, known.name))
        known.seq = known.holder.seq
        self.say(known, tokens)

    @rule(target=ended, known=consumes(running), how=st.sampled_from(ENDS), leaves=st.booleans())
    def end(self, known: Known, how: str, leaves: bool) -> Known:
        """It ends; the process that ended it takes it off the queue, or dies before."""
        assert known.holder is not None
        if how == "completed":
            usage = known.usage if not known.tokens else None
            raw = encode(End("completed", "stop", usage=usage))
            batch = known.holder.batch(raw, after=known.seq, status="completed")
            self.run(self.store.append_many([batch]))
        elif how == "cancelled":
            self.run(cancel(self.store, known.name))
        else:
            self.run(cancel_many(self.store, [known.name]))
        known.took, known.cut = self.of_log(known), known.holder.attempt
        known.has_left = how != "completed"
        if leaves:
            self.leave_queue(known)
        return known

    def of_log(self, known: Known) -> Figures:
        """What the log says: the last report, and the tokens after it, counted."""
        reported = known.usage
        if known.tokens == 0:
            return figures_of(reported, 0)
        prompt = reported.prompt_tokens if reported else 0
        completion = known.tokens + (reported.completion_tokens if reported else 0)
        extra = {"estimated": True}
        return figures_of(Counts(prompt, completion, prompt + completion, extra), 0)

    @rule(known=ended, counts=COUNTS, is_last=st.booleans())
    def spend(self, known: Known, counts: Counts, is_last: bool) -> None:
        """A worker has counted by itself: the last one, or one that was taken over before."""
        assert known.holder is not None
        attempt = known.holder.attempt if is_last else known.holder.attempt - 1
        args = [attempt, encode_counts(counts)]
        noted = self.run(self.store.scripts.run("spend", [keys.meta(known.name)], args))
        assert noted == int(is_last)
        if noted:
            # A worker notes its counts once; a later millisecond puts two notes in order.
            self.run(self.store.redis.hincrby(keys.meta(known.name), "spent_at", known.spends))
            known.spends += 1
            known.took = figures_of(counts, 0)
            self.leave_queue(known)

    @rule(known=ended)
    def leave_queue(self, known: Known) -> None:
        self.run(forget(self.store, known.name))
        known.has_left = True

    # Looks

    @rule(target=looks, known=ended)
    def read(self, known: Known) -> Look:
        """A process reads what it would count; `known` only says that something has ended."""
        return self.run(self._read())

    async def _read(self) -> Look:
        settled: list[Fact] = []
        ledger, real = self.settlement.ledger, self.settlement.ledger.settle

        async def keep(facts: Any) -> int:
            settled.extend(facts)
            return 0

        found = await self.redis.zrange(keys.unsettled(), 0, -1, withscores=True)
        ledger.settle = keep  # type: ignore[method-assign]
        try:
            await self.settlement.settle([raw.decode() for raw, _ in found])
        finally:
            ledger.settle = real  # type: ignore[method-assign]
        return Look(settled, [(raw.decode(), score) for raw, score in found])

    @rule(look=looks)
    def count(self, look: Look) -> None:
        self.run(self.settlement.ledger.settle(look.facts))
        look.counted = True

    @rule(look=looks)
    def tell(self, look: Look) -> None:
        if not look.counted:
            self.count(look)
        if look.scores:
            words: list[Any] = []
            for name, score in look.scores:
                words += [name, f"{score:.0f}"]
            self.run(self.store.scripts.run("usage_done", [keys.unsettled()], words))

    @rule(known=ended, counts=COUNTS)
    def overtake(self, known: Known, counts: Counts) -> None:
        """A process stops between reading and counting, and a later one overtakes it."""
        self.leave_queue(known)
        old = self.run(self._read())
        self.spend(known, counts, is_last=True)
        self.tell(self.run(self._read()))
        self.count(old)

    @invariant()
    def no_generation_counts_twice(self) -> None:
        ended = sum(known.took is not None for known in self.known)
        assert self.run(self.sums()).prompts <= ended


def test_each_generation_counts_once_in_any_interleaving() -> None:
    with RedisServer() as server:

        class OnServer(UsageMachine):
            url = server.url

        # An old fact that replaces a new one, and a fact that counts twice, are found in 4 to 8, a
        # fact that is forgotten though it was noted again in 13 or more.
        number = examples(15, in_ci=60)
        run_state_machine_as_test(
            OnServer, settings=settings(max_examples=number, stateful_step_count=25, deadline=None)
        )
