"""What every bench is given: readers, the bare loop, a model server, the product; started once.

Also the one way in which CPU is taken: over a window in the middle of a run, from outside, for
tokens that reached a reader's socket within that window and whose text turned out exact.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.support import load as loads
from bench.support.answer import Answer
from bench.support.bare import BareProcess
from bench.support.cpu import MEASURED, OTHERS, busy_s, cpu_s, family_s, pin
from bench.support.load import Load
from bench.support.naive import Naive
from bench.support.system import System
from bench.support.table import MS, US
from bench.support.upstream import UpstreamProcess
from bench.support.wire import Reading
from tests.support.processes import Role

NEVER_S = 600
QUIET_S, QUIET_CORES = 1.0, 0.15
SLACK_S = 1.5  # a run goes on for this long after its window


Probe = Callable[[], Mapping[str, float]]


class WindowMissed(Exception):
    """The run was over before its window was: what was measured is not what was meant."""


@dataclass(slots=True)
class Window:
    """A stretch of time, seconds of the machine's monotonic clock.

    Attributes:
        cpu_s: what each process spent in it.
        seen: what a probe counted in it, the difference between its two answers.
        others: cores that were busy with what is none of ours.
        is_whole: of a quick run, whose window may be missed: all tokens count, whenever they came.
    """

    began_s: float
    ended_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    seen: dict[str, float] = field(default_factory=dict)
    others: float = 0.0
    is_whole: bool = False

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s

    def has(self, at_s: float) -> bool:
        return self.is_whole or self.began_s <= at_s < self.ended_s

    def tokens(self, readings: Sequence[Reading]) -> int:
        """How many tokens reached a reader in it.

        Raises:
            WindowMissed: the last token had come before its end.
        """
        if self.is_whole:
            return sum(len(reading.times) for reading in readings)
        if max(reading.times[-1] for reading in readings) < self.ended_s:
            raise WindowMissed("all tokens had come before the window ended: fewer readers, please")
        return sum(
            bisect_left(reading.times, self.ended_s) - bisect_left(reading.times, self.began_s)
            for reading in readings
        )


@dataclass(frozen=True, slots=True)
class Play:
    """One run: what was read, what was spent, when each token was first written by its model."""

    window: Window
    readings: list[Reading]
    said: list[array[float]]
    which: list[int]

    @property
    def tokens(self) -> int:
        return self.window.tokens(self.readings)

    @property
    def joined(self) -> float:
        """How many came together at a reader, over the whole run."""
        return joined(self.readings)

    def us_per_token(self, who: str) -> float:
        return US * self.window.cpu_s[who] / self.tokens

    def latencies_ms(self) -> list[float]:
        """From the model server's write to the reader's read, of all tokens said in the window."""
        return [
            (got - said) * MS
            for reading, n in zip(self.readings, self.which, strict=True)
            for got, said in zip(reading.times, self.said[n], strict=True)
            if self.window.has(said)
        ]


@dataclass(slots=True)
class Stage:
    """Everything that runs.

    Attributes:
        is_quick: small sizes: does it work, not how fast is it.
        patience_s: a run waits at most this long for others to leave the machine alone.
    """

    is_quick: bool
    repeats: int
    load: Load
    bare: BareProcess
    upstream: UpstreamProcess
    system: System
    patience_s: float = 0.0
    shared_node: Role | None = None
    shared_app: Naive | None = None
    others: list[float] = field(default_factory=list)  # of each window

    def rounds(self) -> Iterator[int]:
        """The repetitions."""
        return iter(range(self.repeats))

    @asynccontextmanager
    async def node(self, *, is_fresh: bool = False, **settings: str) -> AsyncIterator[Role]:
        """An API node that nothing was asked of before; in a quick run one node does for most."""
        if self.shared_node is not None and not settings and not is_fresh:
            yield self.shared_node
            return
        async with self.system.node(**settings) as role:
            yield role

    @asynccontextmanager
    async def naive(self, ping_s: int = NEVER_S) -> AsyncIterator[Naive]:
        """The naive app, fresh; in a quick run one does for all."""
        if self.shared_app is not None:
            yield self.shared_app
            return
        async with Naive(self.system.server.url, ping_s=ping_s) as app:
            yield app

    def pids(self, node: Role) -> dict[str, int]:
        return {
            "api": node.pid,
            "worker": self.system.worker.pid,
            "redis": self.system.redis_pid,
            "model": self.upstream.pid,
        }

    async def play(
        self,
        node: Role,
        answers: Sequence[Answer],
        *,
        kind: str,
        readers: int,
        window_s: float,
        probe: Probe = dict,
    ) -> Play:
        """Have answers generated and read, and look at the middle of it.

        Args:
            readers: of each answer. One reads the POST's own answer; more come by GET.
            probe: see `watch`.
        """
        await self.quiet()
        settled_s = time.monotonic() + answers[0].first_s + self.settle_s
        which = [n for n in range(len(answers)) for _ in range(readers)]
        if readers == 1 and kind in ("sse", "ndjson"):
            accept = loads.ACCEPT[kind]
            asks = [loads.post("/v1/generations", a.body(), accept=accept) for a in answers]
        else:
            ids = await self.system.start(node, answers)
            asks = [loads.get_events(kind, ids[n]) for n in which]
        await self.load.open(address(node), asks, end=loads.ENDS[kind])
        if kind != "poll":
            await self.load.opened()
        window = await self.watch(self.pids(node), settled_s, window_s, probe=probe)
        await self.load.over()
        readings = await self.load.report(kind, [answer.pieces() for answer in answers], which)
        return Play(window, readings, await self.upstream.times(answers), which)

    async def watch(
        self,
        pids: Mapping[str, int],
        begin_s: float,
        window_s: float,
        *,
        probe: Probe = dict,
    ) -> Window:
        """Look at processes for `window_s`, from `begin_s` on or from now, whatever is later.

        Args:
            probe: counters, which only rise; it may block for a moment.
        """
        await asyncio.sleep(max(0.0, begin_s - time.monotonic()))
        busy, ours, counted = busy_s(), family_s(os.getpid()), probe()
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        window = Window(time.monotonic(), is_whole=self.is_quick)
        await asyncio.sleep(window_s)
        window.ended_s = time.monotonic()
        window.cpu_s = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
        window.seen = {name: n - counted.get(name, 0) for name, n in probe().items()}
        busy, ours = busy_s() - busy, family_s(os.getpid()) - ours
        window.others = max(0.0, busy - ours) / window.took_s
        self.others.append(window.others)
        return window

    async def quiet(self) -> None:
        """Return when the machine has had little else to do for a second, or patience is over."""
        until_s = time.monotonic() + self.patience_s
        while time.monotonic() < until_s:
            at_s, busy, ours = time.monotonic(), busy_s(), family_s(os.getpid())
            await asyncio.sleep(QUIET_S)
            others = busy_s() - busy - (family_s(os.getpid()) - ours)
            if others < QUIET_CORES * (time.monotonic() - at_s):
                return

    def pin_measured(self, *pids: int) -> None:
        """Give the first of these a core to itself; the others and the system share the rest."""
        self.system.pin([])
        pin(pids[:1], MEASURED)
        pin(pids[1:], OTHERS)

    @property
    def settle_s(self) -> float:
        """After the first token, until the window."""
        return 0.05 if self.is_quick else 1.0

    def tokens(self, per_s: float, window_s: float) -> int:
        """How long an answer has to be that outlasts a window."""
        slack_s = 0.1 if self.is_quick else SLACK_S
        return round(per_s * (self.settle_s + window_s + slack_s))


def joined(readings: Sequence[Reading]) -> float:
    """Tokens per read of a socket, over all readers: about what left in one write."""
    return sum(len(r.times) for r in readings) / sum(r.reads for r in readings)


def address(node: Role) -> tuple[str, int]:
    return "127.0.0.1", node.port


@asynccontextmanager
async def open_stage(
    *, is_quick: bool, repeats: int = 1, patience_s: float = 0.0
) -> AsyncIterator[Stage]:
    """Start everything; nothing is left behind."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(UpstreamProcess())
        load = await stack.enter_async_context(Load())
        bare = await stack.enter_async_context(BareProcess())
        system = await stack.enter_async_context(System(upstream.base_url))
        stage = Stage(is_quick, repeats, load, bare, upstream, system, patience_s)
        if is_quick:
            stage.shared_node = await stack.enter_async_context(system.node())
            app = Naive(system.server.url, ping_s=1)
            stage.shared_app = await stack.enter_async_context(app)
        yield stage
