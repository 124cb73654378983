"""Reads everything that the consoles of this node show: one sampler for all pages.

The sampler runs while at least one page is open. It reads each `TICK_S`, within
`COMMANDS_PER_TICK` commands: the reports of all workers and nodes; some partitions of the queue, in
turn; and one of the slow parts (api/console/background.py), in turn. With what is left it reads the
owners and models of generations that rows show. The first tick reads all partitions.

Invariant: the number of pages does not change what a tick costs Redis.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Protocol

from api.console.background import Background
from api.console.details import command
from api.console.limits import COMMANDS_PER_TICK, OWNERS_SHOWN, PAGES_MAX, ROWS_PER_PAGE, TICK_S
from api.console.rows import (
    Filter,
    RowPage,
    readers_of,
)
from api.console.table import Table
from api.console.trends import Trends
from api.console.watcher import Watcher
from api.errors import request_error
from api.hub.hub import Hub
from shared.config.settings import Settings
from shared.console.board import (
    Reading,
    history_command,
    points_of,
    read_commands,
    watch_command,
)
from shared.console.history import living_nodes, living_workers, silent_ms_of
from shared.console.queue_state import (
    LOOK_COMMANDS,
    PartitionState,
    look_commands,
    state_of,
)
from shared.console.reports import NodeReport
from shared.errors import Unavailable
from shared.log.store import Store
from shared.queue.partitions import partitions_of
from shared.queue.presence import Presence
from shared.redis import keys
from shared.redis.client import Client, Command, raise_errors
from shared.redis.pipeline import ClientPipeline

log = logging.getLogger(__name__)

WATCH_EVERY = 2  # ticks; a console counts as open for `WATCHED_MS`
HISTORY_EVERY = 3  # ticks
LOOKS_PER_TICK = 2  # partitions
QUEUED_ROWS_MAX = 400  # waiting generations that all looks together name
BACKGROUND_COMMANDS = 10  # of one slow part
ACTION_ROWS = 5_000  # waiting generations of a lane that an action finds
DETAILS_AT_ONCE = 200  # of an action, in one round trip
OWNER_IDS_MAX = 1_000  # newest generations of an owner that a filter by owner looks through


class SampledNode(Protocol):
    """The part of a node that the sampler needs."""

    redis: Client
    store: Store
    settings: Settings
    hub: Hub


class Sampler:
    """What the consoles of one node show.

    Attributes:
        ticks: how often this sampler has read since it started; rises with each picture.
        problem: why the last tick failed; empty: it did not.
    """

    def __init__(self, node: SampledNode) -> None:
        self._node = node
        self._pipeline = ClientPipeline(node.redis)
        self.background = Background(node.redis, node.settings)
        self._tags = partitions_of(node.settings).tags
        self._queued_rows = max(5, QUEUED_ROWS_MAX // (len(keys.PRIORITIES) * len(self._tags)))
        self._silent_ms = silent_ms_of(node.settings.lease_s)
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._picture = asyncio.Condition()
        self._wake = asyncio.Event()
        self._reset()

    def _reset(self) -> None:
        self.ticks = 0
        self.problem = ""
        self.now_ms = 0
        self.workers: list[tuple[Presence, int]] = []  # with the age of the report, ms
        self.nodes: list[NodeReport] = []
        self.partitions: dict[str, PartitionState] = {}
        self.trends = Trends()
        self.rates: dict[str, float] = {}  # tokens per second by worker
        self.table = Table()
        self._tokens: dict[str, tuple[int, float]] = {}  # by worker: when, and how many
        self._commands = 0  # of this tick
        self._pages: dict[Filter, RowPage] = {}

    @property
    def is_running(self) -> bool:
        """Whether pictures come."""
        return self._task is not None and not self._task.done()

    # Pages

    @asynccontextmanager
    async def watching(self, wanted: Filter, *, is_page: bool = True) -> AsyncIterator[Watcher]:
        """Count as an open page within `async with`.

        Args:
            is_page: False: for one action, which does not count among the pages.

        Raises:
            RequestError: 503 `unavailable`: this node has `PAGES_MAX` open consoles.
        """
        if is_page and sum(each.is_page for each in self._watchers) >= PAGES_MAX:
            raise request_error(
                "unavailable", f"this node has {PAGES_MAX} open consoles: close one, or use another"
            )
        is_idle = not self.is_running
        if is_idle:
            self._reset()
        watcher = Watcher(wanted, self.ticks, is_page=is_page)
        self._watchers.add(watcher)
        self._wake.set()
        if is_idle:
            self._task = self._node.hub.spawn(self._run())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._wake.set()

    async def next_picture(self, seen: int) -> int:
        """Wait for a picture after the one with this number, and return its number.

        Raises:
            TimeoutError: none came within three ticks.
        """
        async with asyncio.timeout(3 * TICK_S), self._picture:
            await self._picture.wait_for(lambda: self.ticks > seen)
        return self.ticks

    def rows_of(self, watcher: Watcher) -> RowPage:
        """Return the rows that a page shows, and note which details it lacks."""
        page = self._pages.get(watcher.wanted)
        if page is None:
            page = self.table.page(watcher, self.background.recent_ids)
            self._pages[watcher.wanted] = page
        return page

    @property
    def lacks_runs(self) -> bool:
        """Whether workers run generations that no report names yet."""
        running = sum(presence.running for presence, _ in self.workers)
        return running > 0 and not self.table.live.by_id

    # The loop

    async def _run(self) -> None:
        while self._watchers:
            self._wake.clear()
            try:
                await self.tick()
                self.problem = ""
            except Unavailable as exc:
                self.problem = str(exc)
            async with self._picture:
                self.ticks += 1
                self._picture.notify_all()
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next tick. A new page whose owner's ids are missing does not wait."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + TICK_S
        while (left_s := until_s - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()
            if not self._watchers:
                return
            try:
                await self._serve_new()
            except Unavailable as exc:
                self.problem = str(exc)
            async with self._picture:
                self.ticks += 1
                self._picture.notify_all()

    async def complete(self, watcher: Watcher) -> list[str]:
        """Return the unfinished generations that a filter shows: for an action.

        Unlike a page, it reads up to `ACTION_ROWS` waiting ones of each lane of each partition, and
        the details of all that it finds.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        await self._read_ids([watcher])
        commands = [each for tag in self._tags for each in look_commands(tag, ACTION_ROWS)]
        replies = await self._pipeline.run(commands)
        for n, tag in enumerate(self._tags):
            some = replies[n * LOOK_COMMANDS : (n + 1) * LOOK_COMMANDS]
            if (state := state_of(tag, some, self.now_ms)) is not None:
                self.partitions[tag] = state  # the next look shows fewer again
        self._make_rows()
        unread = self.table.unread_of(watcher)
        for start in range(0, len(unread), DETAILS_AT_ONCE):
            some = unread[start : start + DETAILS_AT_ONCE]
            replies = await self._pipeline.run([command(each) for each in some])
            for generation_id, reply in zip(some, replies, strict=True):
                self.table.details.take(generation_id, reply)
        self._make_rows()
        return self.table.unfinished_of(watcher)

    async def _serve_new(self) -> None:
        """Read what a page needs that has just been opened, and nothing else."""
        self._pages = {}
        await self._read_ids([watcher for watcher in self._watchers if watcher.is_new])
        for watcher in self._watchers:
            watcher.is_new = False
            self.rows_of(watcher)
        await self._read_details(ROWS_PER_PAGE)

    async def tick(self) -> None:
        """Read once, and make the next picture.

        Raises:
            Unavailable: Redis did not answer in time; the picture stays as it was.
        """
        is_first = not self.ticks or not self.partitions
        self._commands = 0
        looks = self._tags if is_first else self._next_tags()
        commands = read_commands()
        base = len(commands)
        for tag in looks:
            commands += look_commands(tag, self._queued_rows)
        if self.ticks % WATCH_EVERY == 0:
            commands.append(watch_command())
        has_history = self.ticks % HISTORY_EVERY == 0
        if has_history:
            commands.append(history_command(self.trends.at_ms))
        replies = await self._ask(commands)
        raise_errors(replies[:base])
        self._take_reports(Reading.of(replies[:base]))
        for n, tag in enumerate(looks):
            some = replies[base + n * LOOK_COMMANDS : base + (n + 1) * LOOK_COMMANDS]
            if (state := state_of(tag, some, self.now_ms)) is not None:
                self.partitions[tag] = state
        if has_history and not isinstance(replies[-1], Exception):
            self.trends.add(points_of(replies[-1]))
        if is_first:
            await self._look_first()
        self._make_rows()
        await self._read_more(is_first=is_first)

    def _next_tags(self) -> Sequence[str]:
        start = self.ticks * LOOKS_PER_TICK % len(self._tags)
        return [*self._tags, *self._tags][start : start + min(LOOKS_PER_TICK, len(self._tags))]

    def _take_reports(self, reading: Reading) -> None:
        self.now_ms = reading.now_ms
        workers = living_workers(reading, self._silent_ms)
        self.workers = [(each, max(0, reading.now_ms - each.at_ms)) for each in workers]
        self.nodes = living_nodes(reading)
        self.table.readers = readers_of(self.nodes)
        self.table.live.update(reading.runs, {each.worker: each.at_ms for each in workers})
        self._measure(workers)
        if self.table.live.by_id:
            self.table.recent = []

    def _measure(self, workers: Sequence[Presence]) -> None:
        """Compute the tokens per second of each worker, from one report to the next."""
        before, self._tokens = self._tokens, {}
        for each in workers:
            tokens = each.counters.get("tokens", 0.0)
            then_ms, then = before.get(each.worker, (each.at_ms, tokens))
            if each.at_ms > then_ms:
                self.rates[each.worker] = round((tokens - then) * 1000 / (each.at_ms - then_ms), 1)
            self._tokens[each.worker] = each.at_ms, tokens
        self.rates = {name: rate for name, rate in self.rates.items() if name in self._tokens}

    async def _look_first(self) -> None:
        """Read some running generations from the index: workers report theirs within a second."""
        if self.table.live.by_id or not any(state.running for state in self.partitions.values()):
            return
        commands: list[Command] = [
            ("ZREVRANGE", keys.running(tag), 0, ROWS_PER_PAGE - 1) for tag in self._tags
        ]
        replies = await self._ask(commands)
        found = [raw.decode() for reply in replies if isinstance(reply, list) for raw in reply]
        self.table.recent = sorted(found, reverse=True)[: 2 * ROWS_PER_PAGE]
        self.table.details.want(self.table.recent[:ROWS_PER_PAGE])
        await self._read_details(ROWS_PER_PAGE)

    def _make_rows(self) -> None:
        self.table.make_rows(self.partitions.values(), self.now_ms)
        self._pages = {}

    async def _read_more(self, *, is_first: bool) -> None:
        """Read details and one slow part, within what is left of the tick's commands."""
        watchers = list(self._watchers)
        due = [
            each for each in watchers if each.is_new or (each.wanted.owner and self.ticks % 5 == 4)
        ]
        await self._read_ids(due)
        for watcher in watchers:
            watcher.is_new = False
            self.rows_of(watcher)
        left = ROWS_PER_PAGE if is_first else max(0, COMMANDS_PER_TICK - self._commands)
        background = min(BACKGROUND_COMMANDS, left // 2)
        if not is_first and background:
            used = await self.background.read_next(background, self.now_ms, self._owners())
            left -= used
            self._commands += used
        await self._read_details(left)

    def _owners(self) -> list[str]:
        """Return some owners of unfinished generations."""
        live = (run.owner for run, _ in islice(self.table.live.by_id.values(), 10 * OWNERS_SHOWN))
        others = (row.owner for row in self.table.others.values() if row.owner)
        return list(dict.fromkeys([*live, *others]))[:OWNERS_SHOWN]

    async def _read_ids(self, watchers: Sequence[Watcher]) -> None:
        """Read the newest generations of the owners that filters name."""
        named = [watcher for watcher in watchers if watcher.wanted.owner]
        owners = list(dict.fromkeys(watcher.wanted.owner for watcher in named))
        replies = await self._ask(
            [("ZREVRANGE", keys.owner(owner), 0, OWNER_IDS_MAX - 1) for owner in owners]
        )
        found = {
            owner: [raw.decode() for raw in reply]
            for owner, reply in zip(owners, replies, strict=True)
            if isinstance(reply, list)
        }
        for watcher in named:
            watcher.ids = found.get(watcher.wanted.owner, watcher.ids)

    async def _read_details(self, count: int) -> None:
        """Read the details that rows lack, at most `count` of them."""
        ids = self.table.details.take_wanted(count)
        if not ids:
            return
        replies = await self._ask([command(each) for each in ids])
        for generation_id, reply in zip(ids, replies, strict=True):
            self.table.details.take(generation_id, reply)
        self._make_rows()

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if not commands:
            return []
        self._commands += len(commands)
        return await self._pipeline.run(commands)
