"""One generation on this node: its copy, its encoded logs, its readers, and the reads that fill it.

Invariant: pages are read by one task at a time for all readers, and only once the live channel is
subscribed (or known not to be needed), so that nothing falls between the page and the first frame.
A rewrite of the log puts every reader back to the id that it has seen before any of them is woken.
Knows no transport. Source: docs/architecture.md, "The hub".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from api.hub.broadcast import BroadcastGroup, Host
from api.hub.contracts import Outcome, Reader
from api.hub.encoded import EncodedLog
from api.hub.feed import Feed
from api.hub.frame import Entry, FrameInvalid, Notice, parse_frame
from api.hub.recheck import Recheck
from api.hub.token_runs import TokenRuns
from shared.errors import Unavailable
from shared.log.fold import Dialect
from shared.log.ids import START
from shared.log.records import Meta
from shared.log.store import Store

logger = logging.getLogger(__name__)

PAGE_ENTRIES_MAX = 1_000
PAGE_ENTRIES_MIN = 8
PAGE_ENTRIES_FIRST = 256  # before the size of the entries is known
PAGE_BYTES = 262_144
RETRY_S = (0.05, 2.0)  # first and longest pause after a read that failed
REFILL_PAUSE_S = 0.25
EXPECTED_S = 0.05  # then an expected log is read after all
REWRITES_MAX = 3  # in one go; then the next read waits, lest a log that we cannot read spins us

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Relay:
    """What a node holds of one generation.

    Args:
        spawn: runs a coroutine in a task that somebody owns.
        host: the hub, as audiences need it.
    """

    def __init__(
        self,
        meta: Meta,
        store: Store,
        *,
        spawn: Spawn,
        host: Host,
        lease_s: float,
    ) -> None:
        self.meta = meta
        self.feed = Feed()
        self.readers: set[Reader] = set()
        self.scattered: set[Reader] = set()  # those that do not follow in a row
        self.recheck = Recheck(lease_s)
        self.last_words: bytes | None = None  # an end that is not in the log
        self.is_gone = False  # ended, but its log has expired
        self.is_closed = False
        self.is_confirmed = meta.is_ended  # its live channel is subscribed, or not needed
        self.is_expected = False  # about to be created: its log is empty
        self.holds = 0  # requests that are being served from it
        self.opened_at = self.heard_at = self.idle_since = host.now()
        self.grace_lock = asyncio.Lock()
        self.is_attached = False  # Redis counts our readers (grace)
        self.attached_at = 0.0
        self._store = store
        self._spawn = spawn
        self._host = host
        self._clock = host.now
        self.runs = TokenRuns(self.feed)
        self._logs: dict[str, EncodedLog] = {}
        self._audiences: dict[str, BroadcastGroup] = {}
        self._is_reading = False
        self._is_refilling = False
        self._settled = asyncio.Event()
        self._is_settled = False  # the same; asked for each event

    @property
    def generation_id(self) -> str:
        return self.meta.generation_id

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self.feed.is_ended or self.is_gone or self.last_words is not None

    @property
    def bytes_kept(self) -> int:
        kept = self.feed.bytes_kept + self.runs.bytes_kept + len(self.meta.request)
        return kept + sum(log.bytes_kept for log in self._logs.values())

    def take_meta(self, meta: Meta) -> None:
        """Take meta as it was just read; a request that was read before is kept.

        A dialect that says it back may begin its fold at any time from now on.
        """
        is_known = self.meta.request and not meta.request
        self.meta = replace(meta, request=self.meta.request) if is_known else meta

    def encoded(self, dialect: Dialect) -> EncodedLog:
        """Return the log in `dialect`, shared by all who read it so."""
        log = self._logs.get(dialect.name)
        if log is None:
            log = self._logs[dialect.name] = EncodedLog(self.feed, dialect, self.meta)
        return log

    def audience(self, dialect: Dialect, *, is_chunked: bool) -> BroadcastGroup:
        """Return those who follow in `dialect`; a dialect is always chunked, or never."""
        audience = self._audiences.get(dialect.name)
        if audience is None:
            log = self.encoded(dialect)
            audience = BroadcastGroup(log, self.feed, self._host, is_chunked=is_chunked)
            self._audiences[dialect.name] = audience
        return audience

    # Readers

    def join(self, reader: Reader) -> None:
        """Let `reader` read from its cursor on."""
        self.readers.add(reader)
        self.scattered.add(reader)
        if not self.feed.ids.has(reader.position.cursor):
            # Perhaps ours is the old log: read it again before the cursor is declared void.
            self.feed.mark_stale()
            self.read_soon()
        reader.wake()

    def leave(self, reader: Reader) -> None:
        self.readers.discard(reader)
        self.scattered.discard(reader)

    def changed(self) -> None:
        """Wake every reader, and whoever waits for the copy to be whole."""
        if not self._is_settled and (self.feed.is_whole or self.is_over):
            self._is_settled = True
            self._settled.set()
        for reader in self.scattered:
            reader.wake()
        for audience in self._audiences.values():
            if audience.rows:
                audience.changed()

    def disband(self) -> None:
        """Nobody follows any more: each reader has to look for itself."""
        for audience in self._audiences.values():
            audience.disband()

    def break_off(self, outcome: Outcome) -> None:
        for reader in list(self.readers):
            reader.break_off(outcome)

    async def settled(self) -> None:
        """Return once the log has been read to its end, or is known to be gone."""
        await self._settled.wait()

    def say_last_words(self, raw: bytes) -> None:
        """End all readers with an event that is in no log."""
        if not self.is_over:
            self.last_words = raw
            self.disband()
            self.changed()

    def declare_gone(self) -> None:
        """The log has expired: nobody can be given its end any more."""
        self.is_gone = True
        self._settled.set()
        self.break_off(Outcome.LOST)

    # Memory

    def trim(self) -> None:
        """Let go of what all readers have behind them; who needs it has it read again."""
        feed = self.feed
        rows = [a.seq_min for a in self._audiences.values() if a.seq_min is not None]
        target = min([feed.count, *rows])
        for reader in self.scattered:
            is_placed = reader.position.epoch == feed.epoch
            target = min(target, reader.position.seq if is_placed else 0)
        for name, log in list(self._logs.items()):
            if log.count < target:
                del self._logs[name]  # nobody reads it: its readers would be further back
                self._audiences.pop(name, None)
            else:
                log.trim(max(target, log.base))
        feed.trim(target)
        self.runs.forget()

    def refill_soon(self) -> None:
        """Somebody needs what was trimmed: read it once for all who do."""
        if self.feed.base and not self._is_refilling:
            self._is_refilling = True
            self._spawn(self._refill())

    async def _refill(self) -> None:
        feed, epoch = self.feed, self.feed.epoch
        head: list[Entry] = []
        try:
            while len(head) < feed.base and epoch == feed.epoch:
                start = head[-1][0] if head else START
                page = await self._store.page(self.generation_id, start, self._page_entries())
                if head and (not page or page[0][0] != start):
                    break
                head += page[1:] if head else page
                if len(page) < 2:
                    break
            if not feed.refill(epoch, head):
                self.repair()
                await asyncio.sleep(REFILL_PAUSE_S)
        except Unavailable:
            await asyncio.sleep(REFILL_PAUSE_S)
        finally:
            self._is_refilling = False
            self.changed()  # who still lacks something asks again

    # What comes live

    def offer(self, payload: bytes) -> None:
        """Take one message of the live channel. Never waits, never raises."""
        self.heard_at = self._clock()
        if self.feed.follow(payload):
            self.changed()
        else:
            self._look_closer(payload)

    def _look_closer(self, payload: bytes) -> None:
        before = self.feed.count
        try:
            frame = parse_frame(payload)
        except FrameInvalid as exc:
            logger.warning(
                "live frame invalid",
                extra={"generation_id": self.generation_id, "reason": str(exc)},
            )
            self.feed.mark_stale()
        else:
            if isinstance(frame, Notice):
                self.feed.offer_top(frame.top)
            else:
                self.feed.offer_live(frame)
        if self.feed.count != before or self.feed.is_ended:
            self.changed()
        self.read_soon()

    def confirm(self) -> None:
        """The live channel is subscribed, perhaps again: what came before has to be read."""
        is_first, self.is_confirmed = not self.is_confirmed, True
        if is_first and self.is_expected:
            return  # nothing can have come before
        self.feed.mark_stale()
        self.read_soon()

    def take_up(self) -> None:
        """Somebody is going to read: see to what is missing."""
        if self.is_expected and not self.holds:
            # Its first frame will come, unless a worker was quicker than our SUBSCRIBE.
            self._host.call_at(self._clock() + EXPECTED_S, self._expect_no_more)
        else:
            self.read_soon()

    def _expect_no_more(self) -> None:
        self.is_expected = False
        self.read_soon()

    def repair(self) -> None:
        """Something may have been missed: read the log again from the own top."""
        self.feed.mark_stale()
        if not self.feed.is_whole:
            self._settled.clear()
            self._is_settled = False
        self.read_soon()

    # Reading the log

    def read_soon(self) -> None:
        """Start reading unless somebody does, nothing is missing, or it is too early."""
        if self.feed.wants_page and self.is_confirmed and not self._is_reading and not self.is_over:
            self._is_reading = True
            self._spawn(self._read())

    async def _read(self) -> None:
        """Read pages until the copy is whole; one failure after the other is waited out."""
        pause_s = RETRY_S[0]
        rewrites = 0
        try:
            while self.feed.wants_page and not self.is_over and not self.is_closed:
                try:
                    was_dropped = await self._read_page()
                except Unavailable:
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                    pause_s = min(2 * pause_s, RETRY_S[1])
                    continue
                if was_dropped is None:
                    break  # absent: the recheck decides
                rewrites = rewrites + 1 if was_dropped else 0
                if rewrites > REWRITES_MAX:
                    await asyncio.sleep(RETRY_S[1])
        finally:
            self._is_reading = False

    async def _read_page(self) -> bool | None:
        """Read one page; True: the log was rewritten under us; None: there is no generation."""
        feed = self.feed
        request = feed.request_page(self._page_entries())
        try:
            page = await self._store.page(self.generation_id, request.start, request.count)
            is_there = bool(page) or await self._is_there()
        except BaseException:
            feed.page_failed(request)
            raise
        self.heard_at = self._clock()
        if not is_there:
            # Its worker may write it again, the same ids: the copy is kept until that is decided.
            feed.page_failed(request)
            return None
        was_dropped = feed.offer_page(request, page)
        if was_dropped:
            self._put_back()
        self.changed()
        return was_dropped

    async def _is_there(self) -> bool:
        """An empty page: is that the log, or is the generation absent or its log expired?"""
        if self.feed.count == 0 and not self.meta.is_ended:
            return True
        top = (await self._store.tops([self.generation_id]))[0]
        if self.meta.is_ended and top.id is None:
            self.declare_gone()
        return top.status not in (None, "sealed") and not self.is_gone

    def _put_back(self) -> None:
        logger.warning("log rewritten", extra={"generation_id": self.generation_id})
        now = self._clock()
        self.disband()
        for reader in self.readers:
            reader.position.leave(self.feed.former, now)

    def _page_entries(self) -> int:
        if not self.feed.count:
            return PAGE_ENTRIES_FIRST
        fitting = PAGE_BYTES * len(self.feed.raws) // max(1, self.feed.bytes_kept)
        return max(PAGE_ENTRIES_MIN, min(PAGE_ENTRIES_MAX, fitting))
