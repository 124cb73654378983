"""A batch in progress: takes lines, has them asked, gathers what comes back, commits it.

Each step is safe to be the last one: what was taken stands in flight, what was written counts when
it is committed, and whoever goes on asks for the same generations by the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from jobs.batch.check import decode_line
from jobs.batch.flight import PAUSE_S_MAX, Aloft, Flight, pause_of, window_of
from jobs.batch.gathering import Gathering
from jobs.batch.intake import InputReader, line_bytes_max, lines_of
from jobs.batch.line import Terms, line_generation_id, read_query
from jobs.batch.result import (
    EXPIRED,
    GONE_MAX,
    LOST,
    Result,
    Source,
    answered,
    never_done,
    pause_before_next_try,
    refused,
)
from jobs.batch.tools import Tools
from shared.batches.input import fetch
from shared.batches.lease import BatchLease, InFlightLine
from shared.batches.record import Batch, parts_prefix
from shared.files.store import FileRecord
from shared.log.ids import EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.queue.endings import cancel_many
from shared.queue.lanes import running_of, workers_seen

TAKE_LINES, TAKE_BYTES = 64, 4_194_304  # at once
ASK_LINES = 64
COLLECT_LINES, FOLD_LINES = 256, 32
LOG_ENTRIES = 1_000
LOOK_S = 0.25
LINE_KEPT_S = 60.0  # a committed line's generation: its answer is in the output
LEAVE_S = 5.0  # workers get to stop what was cancelled
PASS_LINES = 500

T = TypeVar("T")


class Course:
    """One holder's run of one batch."""

    def __init__(self, tools: Tools, lease: BatchLease, batch: Batch, record: FileRecord) -> None:
        self.tools = tools
        self.lease = lease
        self.batch = batch
        self.record = record
        self.is_held = not tools.owners.is_known(batch.owner)
        self.flight = Flight()
        self.gathering = Gathering(batch.total, batch.completed + batch.failed)
        self.terms = Terms(batch.id, batch.owner, batch.endpoint, tools.models, tools.settings)
        bytes_max = line_bytes_max(tools.settings)
        self._cursor = batch.line
        self._lines = lines_of(
            tools.files, record, line=batch.line, offset=batch.offset, bytes_max=bytes_max
        )
        self._reader = InputReader(self._lines)
        self._commits = 0
        self._window = 0
        self._now_ms = batch.created_at_ms

    @property
    def is_done(self) -> bool:
        """Whether every line has its result."""
        return self._reader.is_exhausted and not self.flight.open()

    @property
    def is_idle(self) -> bool:
        """Whether it is held, and nothing that was asked before goes on."""
        return self.is_held and not self.flight.asked()

    async def resume(self) -> None:
        """Take over what is in flight. To be called once, before everything else."""
        self._now_ms = await self.tools.store.now_ms()
        flying = await self.lease.flight()
        async for at, raw in fetch(self.tools.files, self.record, flying):
            self._admit(at, raw, is_repeat=True)

    async def run(self, until_s: float, stopping: asyncio.Event) -> bool:
        """Go on until the time is over, or the batch needs something else; returns whether it does.

        A batch that is held takes in what was asked before, and has then no use for its time.

        Raises:
            LeaseLost, NotFound, Unavailable.
        """
        look_s = 0.0
        while (now_s := time.monotonic()) < until_s and not stopping.is_set():
            if now_s >= look_s:
                if await self._is_over():
                    break
                look_s = now_s + LOOK_S
            filled, asked = await self._move_on(now_s)
            ended = await self._collect()
            is_last = self.is_done
            if is_last or self.gathering.is_due(time.monotonic()):
                await self.commit()
            if is_last:
                return True
            if self.is_idle:
                await self.commit()
                return False
            await asyncio.sleep(pause_of(filled + asked + ended, len(self.flight.open())))
        else:
            await self.commit()
            return False
        await self.commit()
        return True

    async def close(self) -> None:
        await self._lines.aclose()  # type: ignore[attr-defined]

    async def call_off(self, *, is_expired: bool) -> None:
        """Cancel what is in flight, and take in what was done all the same.

        What was not done leaves without a result, or has expired.
        """
        ids = [one.generation_id for one in self.flight.open()]
        await cancel_many(self.tools.store, ids)
        until_s = time.monotonic() + LEAVE_S
        while ids and time.monotonic() < until_s:
            await asyncio.sleep(PAUSE_S_MAX)
            ids = await running_of(self.tools.redis, ids)
        open_ones = self.flight.open()
        for some in _chunks(open_ones, FOLD_LINES):
            await self._fold(some, is_over=True)
        for one in self.flight.open():
            if is_expired:
                self._done(one, never_done(self._source(one), EXPIRED))
            else:
                one.is_done = True
                self.gathering.drop(one.at, time.monotonic())
        await self.commit()

    async def expire_rest(self) -> None:
        """Give every line that was never taken its place in the error file."""
        while lines := await self._reader.take(PASS_LINES, TAKE_BYTES):
            for line in lines:
                assert line.raw is not None
                at = InFlightLine(line.number, line.offset, line.length)
                custom_id = decode_line(line.raw).custom_id
                source = Source(self.batch.id, self.batch.endpoint, line.number, custom_id)
                result = never_done(source, EXPIRED)
                self.gathering.add(at, custom_id, "", result, time.monotonic())
            last = lines[-1]
            self.gathering.pass_over(self._cursor, last.number, last.after, time.monotonic())
            self._cursor = last.number
            await self.commit()

    async def commit(self) -> None:
        """Write what is gathered, and make it count."""
        gathering = self.gathering
        if gathering.is_empty:
            return
        self._commits += 1
        name = f"{self.lease.token}-{self._commits}"
        parts = []
        for suffix, content in (("out", gathering.output), ("err", gathering.error)):
            if content:
                parts.append(f"{parts_prefix(self.batch.id)}{name}.{suffix}")
                await self.tools.files.put_object(parts[-1], bytes(content))
        lines = gathering.lines
        await self.lease.commit(gathering.commit(name, parts))
        left = self.flight.leave(lines)
        kept_s = min(LINE_KEPT_S, self.tools.settings.retention_s)
        await self.tools.store.keep_for(left, round(kept_s * 1000))

    # One turn

    async def _is_over(self) -> bool:
        """Whether the batch has come to another status, or to its time."""
        self.batch = await self.lease.load()
        now_ms = self._now_ms = await self.tools.store.now_ms()
        presences = await workers_seen(self.tools.redis)
        self._window = window_of(presences, now_ms, 2000 * self.tools.settings.lease_s)
        return self.batch.status != "in_progress" or now_ms >= self.batch.expires_at_ms

    async def _move_on(self, now_s: float) -> tuple[int, int]:
        """Take lines and have them asked, or neither; returns how many of each."""
        if not self.is_held:
            return await self._take(), await self._ask(now_s)
        await self._reader.has_more()  # or nobody would learn that no line is left
        return 0, await self._find_asked(now_s)

    async def _find_asked(self, now_s: float) -> int:
        """Find what a holder before this one has had accepted, and ask nothing."""
        ready = self.flight.to_ask(now_s)
        statuses = await self.tools.store.statuses([one.generation_id for one in ready])
        found = [one for one, status in zip(ready, statuses, strict=True) if status is not None]
        for one in found:
            one.is_asked, one.new = True, None
        return len(found)

    async def _take(self) -> int:
        """Take as many lines as there is room for."""
        room = min(self.flight.room(self._window), TAKE_LINES)
        lines = await self._reader.take(room, TAKE_BYTES) if room else []
        if not lines:
            return 0
        flying = [InFlightLine(line.number, line.offset, line.length) for line in lines]
        last = lines[-1]
        is_mine = await self.lease.take(
            flying, before=self._cursor, line=last.number, offset=last.after
        )
        if not is_mine:  # cancelled: whoever looks next sees it
            return 0
        self._cursor = last.number
        for at, line in zip(flying, lines, strict=True):
            assert line.raw is not None  # the check has refused a file with such a line
            self._admit(at, line.raw, is_repeat=False)
        return len(lines)

    def _admit(self, at: InFlightLine, raw: bytes, *, is_repeat: bool) -> None:
        query = read_query(raw, self.terms, self._wait_s)
        named = line_generation_id(self.batch.id, at.line, at.tries)
        one = Aloft(at, query.custom_id, named, query.new, is_repeat=is_repeat)
        self.flight.add(one)
        if query.error is not None:
            one.generation_id = ""
            self._done(one, refused(self._source(one), query.error))

    @property
    def _wait_s(self) -> float:
        """A line waits for a worker as long as the batch may."""
        return max(1.0, (self.batch.expires_at_ms - self._now_ms) / 1000)

    async def _ask(self, now_s: float) -> int:
        """Have lines accepted that nobody has asked yet, or that are to be asked again."""
        ready = self.flight.to_ask(now_s)
        lacking = {one.at.line: one for one in ready if one.new is None}
        if lacking:
            wanted = [one.at for one in lacking.values()]
            async for at, raw in fetch(self.tools.files, self.record, wanted):
                lacking[at.line].new = read_query(raw, self.terms, self._wait_s).new
        for some in _chunks(ready, ASK_LINES):
            new = [(one.generation_id, one.new) for one in some if one.new is not None]
            # No token protects what is accepted: who is not the holder any more must not do it.
            await self.lease.confirm()
            await self.tools.acceptor.accept_lines(
                new, is_repeat=any(one.is_repeat for one in some)
            )
            for one in some:
                one.is_asked, one.new = True, None
        return len(ready)

    async def _collect(self) -> int:
        """Take in what has ended."""
        asked = self.flight.asked()
        if not asked:
            return 0
        statuses = await self.tools.store.statuses([one.generation_id for one in asked])
        ended, gone = self.flight.sort(asked, statuses, time.monotonic())
        for some in _chunks(ended[:COLLECT_LINES], FOLD_LINES):
            await self._fold(some, is_over=False)
        for one in gone:
            self._ask_again(one, 0.0)
        return len(ended) + len(gone)

    async def _fold(self, some: Sequence[Aloft], *, is_over: bool) -> None:
        """Make results of generations that have ended; with `is_over`, not of those called off."""
        ids = [one.generation_id for one in some]
        metas = await self._metas(ids)
        logs = await self.tools.store.first_pages(ids, LOG_ENTRIES)
        for one, meta, log in zip(some, metas, logs, strict=True):
            if is_over and (meta is None or meta.status not in ("completed", "failed")):
                continue
            if len(log) == LOG_ENTRIES:
                log = await self._whole_log(one.generation_id)
            if meta is None or not log:  # it ended so long ago that nobody can read it
                self._ask_again(one, 0.0)
                continue
            self._take_in(one, meta, log)

    async def _metas(self, ids: Sequence[str]) -> list[Meta | None]:
        """Return what is known of lines; with the request where the endpoint says it back."""
        store = self.tools.store
        metas = await store.metas(ids)
        if self.batch.endpoint == "/v1/chat/completions":
            return metas
        return await store.with_requests(metas)

    def _take_in(self, one: Aloft, meta: Meta, log: list[tuple[EventId, bytes]]) -> None:
        result, end = answered(self._source(one), meta, log)
        pause_s = pause_before_next_try(end, one.at.tries)
        if pause_s is None:
            self._done(one, result)
        else:
            self._ask_again(one, pause_s)

    async def _whole_log(self, generation_id: str) -> list[tuple[EventId, bytes]]:
        found: list[tuple[EventId, bytes]] = []
        await read_log(self.tools.store, generation_id, lambda *entry: found.append(entry))
        return found

    def _ask_again(self, one: Aloft, pause_s: float) -> None:
        """Under an id of its own: the one that it had has had its end, or is gone."""
        if one.at.tries >= GONE_MAX:
            self._done(one, never_done(self._source(one), LOST))
            return
        now_s = time.monotonic()
        one.at = one.at._replace(tries=one.at.tries + 1)
        one.generation_id = line_generation_id(self.batch.id, one.at.line, one.at.tries)
        one.is_asked, one.new, one.ask_at_s, one.absent_since_s = False, None, now_s + pause_s, 0.0
        self.gathering.ask_again(one.at, now_s)

    def _done(self, one: Aloft, result: Result) -> None:
        one.is_done, one.new = True, None
        self.gathering.add(one.at, one.custom_id, one.generation_id, result, time.monotonic())

    def _source(self, one: Aloft) -> Source:
        return Source(
            self.batch.id, self.batch.endpoint, one.at.line, one.custom_id, one.generation_id
        )


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
