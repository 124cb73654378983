"""Starts and holds everything that a benchmark uses: readers, bare loop, model server, Tailrace.

Also the only way in which CPU is measured: from outside, over a window in the middle of a run, for
tokens that reached a reader's socket within the window and whose text was exact.
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
from bench.support.wire import ReaderResult
from tests.support.processes import Role

NEVER_S = 600
QUIET_S, QUIET_CORES = 1.0, 0.15
SLACK_S = 1.5  # how long a run continues after its window


Probe = Callable[[], Mapping[str, float]]


class WindowMissed(Exception):
    """The run ended before its window did, so the measurement does not count."""


@dataclass(slots=True)
class Window:
    """A time window, in seconds of the monotonic clock.

    Attributes:
        cpu_s: the CPU of each process in the window.
        seen: the growth of the probe's counters in the window.
        others: cores that were busy with processes that are not ours.
        is_whole: a quick run, whose window may be missed: all tokens count.
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
        """Whether a time is in the window."""
        return self.is_whole or self.began_s <= at_s < self.ended_s

    def tokens(self, readings: Sequence[ReaderResult]) -> int:
        """Return how many tokens reached a reader in the window.

        Raises:
            WindowMissed: the last token came before the end of the window.
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
class MeasuredRun:
    """One run.

    Attributes:
        written_at: when the model server first wrote each token, by answer.
        which: the index of the answer of each reader.
    """

    window: Window
    readings: list[ReaderResult]
    written_at: list[array[float]]
    which: list[int]

    @property
    def tokens(self) -> int:
        return self.window.tokens(self.readings)

    @property
    def joined(self) -> float:
        """Tokens per read of a socket, over the whole run."""
        return joined(self.readings)

    def us_per_token(self, who: str) -> float:
        """Return µs of CPU of one process per token that a reader got in the window."""
        return US * self.window.cpu_s[who] / self.tokens

    def latencies_ms(self) -> list[float]:
        """Return the delays from the model's write to the read, of tokens written in the window."""
        return [
            (got - written_at) * MS
            for reading, n in zip(self.readings, self.which, strict=True)
            for got, written_at in zip(reading.times, self.written_at[n], strict=True)
            if self.window.has(written_at)
        ]


@dataclass(slots=True)
class Setup:
    """All processes of a benchmark.

    Attributes:
        is_quick: small sizes that check whether the benchmark runs, and measure nothing.
        patience_s: how long a run waits for a quiet machine.
        others: of each window, cores that were busy with processes that are not ours.
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
    others: list[float] = field(default_factory=list)

    def rounds(self) -> Iterator[int]:
        """Return the numbers of the repetitions."""
        return iter(range(self.repeats))

    @asynccontextmanager
    async def node(self, *, is_fresh: bool = False, **settings: str) -> AsyncIterator[Role]:
        """Yield a fresh API node. A quick run shares one node, unless a fresh one is needed."""
        if self.shared_node is not None and not settings and not is_fresh:
            yield self.shared_node
            return
        async with self.system.node(**settings) as role:
            yield role

    @asynccontextmanager
    async def naive(self, ping_s: int = NEVER_S) -> AsyncIterator[Naive]:
        """Yield a fresh naive app. A quick run shares one."""
        if self.shared_app is not None:
            yield self.shared_app
            return
        async with Naive(self.system.server.url, ping_s=ping_s) as app:
            yield app

    def pids(self, node: Role) -> dict[str, int]:
        """Return the measured processes by name."""
        return {
            "api": node.pid,
            "worker": self.system.worker.pid,
            **self.system.redis_pids,
            "model": self.upstream.pid,
        }

    async def measured_run(
        self,
        node: Role,
        answers: Sequence[Answer],
        *,
        kind: str,
        readers: int,
        window_s: float,
        probe: Probe = dict,
    ) -> MeasuredRun:
        """Let answers be generated and read, and measure the middle of the run.

        Args:
            readers: of each answer. A single reader reads the POST's own response; several use GET.
            probe: see `watch`.
        """
        await self.quiet()
        settled_s = time.monotonic() + answers[0].first_s + self.settle_s
        which = [n for n in range(len(answers)) for _ in range(readers)]
        if readers == 1 and kind in ("sse", "ndjson"):
            accept = loads.ACCEPT[kind]
            requests = [loads.post("/v1/generations", a.body(), accept=accept) for a in answers]
        else:
            ids = await self.system.start(node, answers)
            requests = [loads.get_events(kind, ids[n]) for n in which]
        await self.load.open(address(node), requests, end=loads.ENDS[kind])
        if kind != "poll":
            await self.load.opened()
        window = await self.watch(self.pids(node), settled_s, window_s, probe=probe)
        await self.load.over()
        readings = await self.load.report(kind, [answer.pieces() for answer in answers], which)
        return MeasuredRun(window, readings, await self.upstream.times(answers), which)

    async def watch(
        self,
        pids: Mapping[str, int],
        begin_s: float,
        window_s: float,
        *,
        probe: Probe = dict,
    ) -> Window:
        """Measure processes for `window_s`, from `begin_s` or from now, whichever is later.

        Args:
            probe: returns counters that only rise; may block for a moment.
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
        """Wait until the machine was nearly idle for a second, at most `patience_s`."""
        until_s = time.monotonic() + self.patience_s
        while time.monotonic() < until_s:
            at_s, busy, ours = time.monotonic(), busy_s(), family_s(os.getpid())
            await asyncio.sleep(QUIET_S)
            others = busy_s() - busy - (family_s(os.getpid()) - ours)
            if others < QUIET_CORES * (time.monotonic() - at_s):
                return

    def pin_measured(self, *pids: int) -> None:
        """Give the first process its own core; the others and the system share the rest."""
        self.system.pin([])
        pin(pids[:1], MEASURED)
        pin(pids[1:], OTHERS)

    @property
    def settle_s(self) -> float:
        """Seconds from the first token to the window."""
        return 0.05 if self.is_quick else 1.0

    def tokens(self, per_s: float, window_s: float) -> int:
        """Return how many tokens an answer needs to last longer than a window."""
        slack_s = 0.1 if self.is_quick else SLACK_S
        return round(per_s * (self.settle_s + window_s + slack_s))


def joined(readings: Sequence[ReaderResult]) -> float:
    """Return tokens per read of a socket, over all readers: about how many left in one write."""
    return sum(len(r.times) for r in readings) / sum(r.reads for r in readings)


def address(node: Role) -> tuple[str, int]:
    return "127.0.0.1", node.port


@asynccontextmanager
async def open_setup(
    *, is_quick: bool, repeats: int = 1, patience_s: float = 0.0
) -> AsyncIterator[Setup]:
    """Start all processes; stop all of them on exit."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(UpstreamProcess())
        load = await stack.enter_async_context(Load())
        bare = await stack.enter_async_context(BareProcess())
        system = await stack.enter_async_context(System(upstream.base_url))
        setup = Setup(is_quick, repeats, load, bare, upstream, system, patience_s)
        if is_quick:
            setup.shared_node = await stack.enter_async_context(system.node())
            app = Naive(system.server.url, ping_s=1)
            setup.shared_app = await stack.enter_async_context(app)
        yield setup
