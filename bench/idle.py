"""Measures idle readers of a silent generation: memory of each, and CPU per heartbeat.

Memory is the growth of the process when the readers connect, after a few others have connected and
left. The CPU of a heartbeat is the CPU beyond that of the same process without readers, divided by
the heartbeats that reached a socket. Every compared server sends one heartbeat per 2 s.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from bench.support import naive
from bench.support.cpu import rss_bytes
from bench.support.load import ACCEPT, Address, get, get_events
from bench.support.load_process import ReaderRequest
from bench.support.nchan import WHO as NCHAN
from bench.support.nchan import Nchan, why_missing
from bench.support.setup import Setup, WindowMissed, address
from bench.support.table import US, Comparison, Row
from bench.support.writer import Writer
from tests.support.generation import Holder
from tests.support.processes import Role
from tests.support.wait import until

OURS = {"sse": "Tailrace, SSE", "ndjson": "Tailrace, NDJSON", "ws": "Tailrace, WebSocket"}
MEMORY_KB_MAX, BEAT_US_MAX = 12.0, 10.0
BEAT_S = 2
BEATS = {"sse": b": ping\n", "ndjson": b"\r\n\n\r\n", "ws": b"\x89"}
NCHAN_BEAT = b"event: ping"
NAIVE_BEAT = b": ping - "


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        warm: readers that connect and leave before the measurement.
        beat_s: time between two heartbeats.
    """

    readers: int
    warm: int
    window_s: float
    beat_s: float


FULL = Size(2_000, 100, 8.0, BEAT_S)
QUICK = Size(20, 2, 0.1, 0.3)


@dataclass(slots=True)
class _Idle:
    """The measurement of one server after the other."""

    setup: Setup
    size: Size
    memory: Comparison
    beats: Comparison

    async def measure(
        self, who: str, pid: int, server: Address, request: ReaderRequest, *, beat: bytes
    ) -> None:
        """Measure one server: connect idle readers, then watch heartbeats.

        Raises:
            WindowMissed: no heartbeat came within the window.
        """
        load, size = self.setup.load, self.size
        await self.setup.quiet()
        await warm(self.setup, server, request, size.warm)
        alone = await self.setup.watch(
            {who: pid}, time.monotonic() + self.setup.settle_s, size.window_s / 2
        )
        before = rss_bytes(pid)
        await connect(self.setup, server, request, size.readers)
        self.memory.add(who, (rss_bytes(pid) - before) / 1_000 / size.readers)
        heard: Callable[[], int | Awaitable[int]] = partial(self._heard, beat)
        await until(heard, 10 * size.beat_s + 10, f"{who}: a heartbeat")
        seen = 0 if self.setup.is_quick else await load.count(beat)
        window = await self.setup.watch({who: pid}, 0.0, size.window_s)
        count = await load.count(beat) - seen
        await load.close()
        if not count:
            raise WindowMissed(f"{who}: no heartbeat came within {window.took_s:.1f} s")
        idle_s = alone.cpu_s[who] * window.took_s / alone.took_s
        self.beats.add(who, US * (window.cpu_s[who] - idle_s) / count)

    async def _heard(self, beat: bytes) -> int:
        return await self.setup.load.count(beat)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size = QUICK if setup.is_quick else FULL
    work = f"{size.readers:,} idle readers"
    memory_goals = dict.fromkeys(OURS.values(), MEMORY_KB_MAX)
    beat_goals = dict.fromkeys(OURS.values(), BEAT_US_MAX)
    idle = _Idle(
        setup,
        size,
        Comparison(f"{work}: memory of the node for each", "kB", goals=memory_goals),
        Comparison(f"{work}: CPU of the node per heartbeat", "µs", goals=beat_goals),
    )
    for n in setup.rounds():
        await _ours(idle)
        if setup.is_quick:
            break
        if not why_missing():
            async with Nchan(setup.system.server.port, ping_s=math.ceil(size.beat_s)) as nchan:
                request = get("/read/idle")
                await idle.measure(NCHAN, nchan.pid, nchan.address, request, beat=NCHAN_BEAT)
        if n == 0:
            await _naive(idle)
    return [*idle.memory.rows(), *idle.beats.rows()]


async def _ours(idle: _Idle) -> None:
    system = idle.setup.system
    async with Writer(system.server.url) as writer:
        holder = await writer.begin()
        kinds = {"sse": OURS["sse"]} if idle.setup.is_quick else OURS
        for kind, who in kinds.items():
            async with system.node(heartbeat_s=str(idle.size.beat_s)) as node:
                request = get_events(kind, holder.generation_id)
                await idle.measure(who, node.pid, address(node), request, beat=BEATS[kind])
        await writer.end(holder, tokens_before=0)


async def _naive(idle: _Idle) -> None:
    system = idle.setup.system
    async with (
        Writer(system.server.url) as writer,
        idle.setup.naive(math.ceil(idle.size.beat_s)) as app,
    ):
        holder = await writer.begin()
        request = get_events("sse", holder.generation_id)
        await idle.measure(naive.WHO, app.pid, app.address, request, beat=NAIVE_BEAT)
        await writer.end(holder, tokens_before=0)


async def memory_kb(setup: Setup, node: Role, kind: str, holder: Holder, readers: int) -> float:
    """Return the memory of a node per idle reader, kB; the readers are disconnected afterwards."""
    request = get_events(kind, holder.generation_id)
    if kind == "poll":  # a poll after the last event waits
        request = get(
            f"/v1/generations/{holder.generation_id}/events?wait=60&last_event_id=1-1",
            accept=ACCEPT["poll"],
        )
    await warm(setup, address(node), request, readers // 10)
    before = rss_bytes(node.pid)
    await connect(setup, address(node), request, readers)
    grown = rss_bytes(node.pid) - before
    await setup.load.close()
    return grown / 1_000 / readers


async def warm(setup: Setup, server: Address, request: ReaderRequest, readers: int) -> None:
    """Connect a few readers and disconnect them, so that one-time allocations are not counted."""
    await connect(setup, server, request, readers)
    await setup.load.close()


async def connect(setup: Setup, server: Address, request: ReaderRequest, readers: int) -> None:
    """Connect idle readers and wait until the memory of the requests is free again."""
    await setup.load.open(server, [request] * readers, end=b"never")
    if b"wait=60" not in request.first:
        await setup.load.opened()
    await asyncio.sleep(setup.settle_s)  # the memory of the requests is freed
