"""Runs a batch in progress: takes lines, asks them, gathers their results and commits these.

A crash after any step is safe. Taken lines are in flight, results count only with their commit, and
the next holder uses the same ids of generations.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

from jobs.batch.check import decode_line
from jobs.batch.flight import PAUSE_S_MAX, Flight, FlightLine, pause_of, window_of
from jobs.batch.gathering import Gathering
from jobs.batch.input_reader import InputReader, line_bytes_max, lines_of
from jobs.batch.line import Terms, line_generation_id, read_query
from jobs.batch.parts import BatchParts
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
from shared.batches.input import fetch
from shared.batches.lease import BatchLease, InFlightLine
from shared.batches.record import Batch, parts_prefix
from shared.files.store import FileRecord
from shared.log.ids import EventId
from shared.log.log_reader import read_log
from shared.log.records import Meta
from shared.queue.endings import cancel_many
from shared.queue.overview import running_of
from shared.queue.presence import workers_seen

TAKE_LINES, TAKE_BYTES = 64, 4_194_304  # taken at once
ASK_LINES = 64  # accepted in one call
COLLECT_LINES, FOLD_LINES = 256, 32  # results of one turn, and of one round trip
LOG_ENTRIES = 1_000  # of each log in one round trip
STATUS_CHECK_S = 0.25  # between two checks for a cancel and the end of the window
LEAVE_S = 5.0  # for workers to stop cancelled lines
PASS_LINES = 500  # expired lines of one commit

T = TypeVar("T")


class BatchRun:
    """The run of one batch by one holder.

    Args:
        is_held: no credentials name the owner any more, or the tokens of the owner's day are used
            up, so no line is asked.
    """

    def __init__(
        self,
        parts: BatchParts,
        lease: BatchLease,
        batch: Batch,
        record: FileRecord,
        *,
        is_held: bool = False,
    ) -> None:
        self.parts = parts
        self.lease = lease
        self.batch = batch
        self.record = record
        self.is_held = is_held
        self.flight = Flight()
        self.gathering = Gathering(batch.total, batch.completed + batch.failed)
        self.terms = Terms(
            batch.id, batch.owner, batch.endpoint, parts.models, parts.settings,
            parts.owners.limits_of(batch.owner).of_lines,
        )  # fmt: skip
        bytes_max = line_bytes_max(parts.settings)
        self._cursor = batch.line
        self._lines = lines_of(
            parts.files, record, line=batch.line, offset=batch.offset, bytes_max=bytes_max
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
        """Whether the batch is held, and no asked line is left."""
        return self.is_held and not self.flight.asked()

    async def resume(self) -> None:
        """Read the lines in flight of the holder before. Call it once, first."""
        self._now_ms = await self.parts.store.now_ms()
        flying = await self.lease.flight()
        async for at, raw in fetch(self.parts.files, self.record, flying):
            self._admit(at, raw, is_repeat=True)

    async def run(self, until_s: float, stopping: asyncio.Event) -> bool:
        """Run until `until_s`, or until the batch needs another step.

        A held batch collects the results of lines that were asked before, and then stops early.

        Returns:
            whether the batch needs another step: every line has its result, or the status changed,
            or the window is over.

        Raises:
            LeaseLost, NotFound, Unavailable: the next slice continues.
        """
        check_s = 0.0
        while (now_s := time.monotonic()) < until_s and not stopping.is_set():
            if now_s >= check_s:
                if await self._is_over():
                    break
                check_s = now_s + STATUS_CHECK_S
            filled, asked = await self._take_and_ask(now_s)
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
        """Close the input file."""
        await self._lines.aclose()  # type: ignore[attr-defined]

    async def call_off(self, *, is_expired: bool) -> None:
        """Cancel the lines in flight, and gather the results of those that ended before.

        Args:
            is_expired: write an `EXPIRED` result for the others; False: they get no result.
        """
        ids = [item.generation_id for item in self.flight.open()]
        await cancel_many(self.parts.store, ids)
        until_s = time.monotonic() + LEAVE_S
        while ids and time.monotonic() < until_s:
            await asyncio.sleep(PAUSE_S_MAX)
            ids = await running_of(self.parts.store, ids)
        open_items = self.flight.open()
        for some in _chunks(open_items, FOLD_LINES):
            await self._fold(some, is_over=True)
        for item in self.flight.open():
            if is_expired:
                self._done(item, never_done(self._source(item), EXPIRED))
            else:
                item.is_done = True
                self.gathering.drop(item.at, time.monotonic())
        await self.commit()

    async def expire_rest(self) -> None:
        """Write an `EXPIRED` result for every line that was never taken."""
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
        """Write the gathered results, and commit them."""
        gathering = self.gathering
        if gathering.is_empty:
            return
        self._commits += 1
        name = f"{self.lease.token}-{self._commits}"
        parts = []
        for suffix, content in (("out", gathering.output), ("err", gathering.error)):
            if content:
                parts.append(f"{parts_prefix(self.batch.id)}{name}.{suffix}")
                await self.parts.files.put_object(parts[-1], bytes(content))
        lines = gathering.lines
        await self.lease.commit(gathering.commit(name, parts))
        self.parts.done_lines.add(self.flight.leave(lines))

    # One turn

    async def _is_over(self) -> bool:
        """Whether the status has changed, or the window is over. Also refreshes the window size."""
        self.batch = await self.lease.load()
        now_ms = self._now_ms = await self.parts.store.now_ms()
        presences = await workers_seen(self.parts.redis)
        self._window = window_of(presences, now_ms, 2000 * self.parts.settings.lease_s)
        return self.batch.status != "in_progress" or now_ms >= self.batch.expires_at_ms

    async def _take_and_ask(self, now_s: float) -> tuple[int, int]:
        """Take lines and ask lines, and return both numbers. A held batch takes and asks none."""
        if not self.is_held:
            return await self._take(), await self._ask(now_s)
        await self._reader.has_more()  # sets `is_exhausted` if no line is left
        return 0, await self._find_asked(now_s)

    async def _find_asked(self, now_s: float) -> int:
        """Mark the lines that an earlier holder has asked; ask none. Return their number."""
        ready = self.flight.to_ask(now_s)
        statuses = await self.parts.store.statuses([item.generation_id for item in ready])
        found = [item for item, status in zip(ready, statuses, strict=True) if status is not None]
        for item in found:
            item.is_asked, item.new = True, None
        return len(found)

    async def _take(self) -> int:
        """Take as many lines as the flight has room for, and return their number."""
        room = min(self.flight.room(self._window), TAKE_LINES)
        lines = await self._reader.take(room, TAKE_BYTES) if room else []
        if not lines:
            return 0
        flying = [InFlightLine(line.number, line.offset, line.length) for line in lines]
        last = lines[-1]
        is_mine = await self.lease.take(
            flying, before=self._cursor, line=last.number, offset=last.after
        )
        if not is_mine:  # the batch is cancelled; the next status check notices
            return 0
        self._cursor = last.number
        for at, line in zip(flying, lines, strict=True):
            assert line.raw is not None  # validation has refused such a file
            self._admit(at, line.raw, is_repeat=False)
        return len(lines)

    def _admit(self, at: InFlightLine, raw: bytes, *, is_repeat: bool) -> None:
        query = read_query(raw, self.terms, self._wait_s)
        generation_id = line_generation_id(self.batch.id, at.line, at.tries)
        item = FlightLine(at, query.custom_id, generation_id, query.new, is_repeat=is_repeat)
        self.flight.add(item)
        if query.error is not None:
            item.generation_id = ""
            self._done(item, refused(self._source(item), query.error))

    @property
    def _wait_s(self) -> float:
        """The longest wait of a line for a worker: until the batch expires, s."""
        return max(1.0, (self.batch.expires_at_ms - self._now_ms) / 1000)

    async def _ask(self, now_s: float) -> int:
        """Accept the lines that are to be asked now, and return their number."""
        ready = self.flight.to_ask(now_s)
        lacking = {item.at.line: item for item in ready if item.new is None}
        if lacking:
            wanted = [item.at for item in lacking.values()]
            async for at, raw in fetch(self.parts.files, self.record, wanted):
                lacking[at.line].new = read_query(raw, self.terms, self._wait_s).new
        for some in _chunks(ready, ASK_LINES):
            new = [(item.generation_id, item.new) for item in some if item.new is not None]
            # No token protects this step: only the present holder may do it.
            await self.lease.confirm()
            await self.parts.acceptor.accept_lines(
                new, is_repeat=any(item.is_repeat for item in some)
            )
            for item in some:
                item.is_asked, item.new = True, None
        return len(ready)

    async def _collect(self) -> int:
        """Gather the results of ended lines. Return the number of ended and lost lines."""
        asked = self.flight.asked()
        if not asked:
            return 0
        statuses = await self.parts.store.statuses([item.generation_id for item in asked])
        ended, gone = self.flight.sort(asked, statuses, time.monotonic())
        for some in _chunks(ended[:COLLECT_LINES], FOLD_LINES):
            await self._fold(some, is_over=False)
        for item in gone:
            self._ask_again(item, 0.0)
        return len(ended) + len(gone)

    async def _fold(self, some: Sequence[FlightLine], *, is_over: bool) -> None:
        """Gather the results of ended generations.

        Args:
            is_over: the batch is cancelled or expired: skip cancelled generations.
        """
        ids = [item.generation_id for item in some]
        metas = await self._metas(ids)
        logs = await self.parts.store.first_pages(ids, LOG_ENTRIES)
        for item, meta, log in zip(some, metas, logs, strict=True):
            if is_over and (meta is None or meta.status not in ("completed", "failed")):
                continue
            if len(log) == LOG_ENTRIES:
                log = await self._whole_log(item.generation_id)
            if meta is None or not log:  # it ended so long ago that its log has expired
                self._ask_again(item, 0.0)
                continue
            self._gather(item, meta, log)

    async def _metas(self, ids: Sequence[str]) -> list[Meta | None]:
        """Return the metas of lines, with the requests if the endpoint's response needs them."""
        store = self.parts.store
        metas = await store.metas(ids)
        if self.batch.endpoint == "/v1/chat/completions":
            return metas
        return await store.with_requests(metas)

    def _gather(self, item: FlightLine, meta: Meta, log: list[tuple[EventId, bytes]]) -> None:
        result, end = answered(self._source(item), meta, log)
        pause_s = pause_before_next_try(end, item.at.tries)
        if pause_s is None:
            self._done(item, result)
        else:
            self._ask_again(item, pause_s)

    async def _whole_log(self, generation_id: str) -> list[tuple[EventId, bytes]]:
        found: list[tuple[EventId, bytes]] = []
        await read_log(self.parts.store, generation_id, lambda *entry: found.append(entry))
        return found

    def _ask_again(self, item: FlightLine, pause_s: float) -> None:
        """Try a line again under a new id: the generation of the old id has ended or is lost."""
        if item.at.tries >= GONE_MAX:
            self._done(item, never_done(self._source(item), LOST))
            return
        now_s = time.monotonic()
        item.at = item.at._replace(tries=item.at.tries + 1)
        item.generation_id = line_generation_id(self.batch.id, item.at.line, item.at.tries)
        item.is_asked, item.new = False, None
        item.ask_at_s, item.absent_since_s = now_s + pause_s, 0.0
        self.gathering.ask_again(item.at, now_s)

    def _done(self, item: FlightLine, result: Result) -> None:
        item.is_done, item.new = True, None
        self.gathering.add(item.at, item.custom_id, item.generation_id, result, time.monotonic())

    def _source(self, item: FlightLine) -> Source:
        return Source(
            self.batch.id, self.batch.endpoint, item.at.line, item.custom_id, item.generation_id
        )


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
