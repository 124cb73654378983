"""One generation on this node: its feed, its encoded logs, its readers, and the reads of its log.

    live message ──offer()──▶ feed.append_plain_frame ──appended──▶ note_change(): wake readers
                                   │ not plain
                                   ▼
                              parse_frame, feed.offer_frame / offer_top
                                   │ something is missing: the feed is stale
                                   ▼
                              read_soon(): one task reads pages from the copy's top to the end
                                   │ Redis has rewritten the log: the feed was dropped
                                   ▼
                              every position becomes a cursor again, then wake readers

Life of a relay: opened by the hub; `confirm` when its live channel is subscribed; held by requests
(`holds`); kept for a while without holds; closed by the hub (`is_closed`). Its log is over when the
feed is ended, the log has expired (`is_expired`), or the generation is lost (`unlogged_end`).

Invariants: one task at a time reads pages, for all readers, and only after the live channel is
subscribed (or is not needed). So no event is missed between the last page and the first frame.
After a rewrite all positions are converted before any reader is woken. Knows no transport.
Source: docs/architecture.md, "The hub".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from api.compression.encoding import SharedEncoding
from api.hub.broadcast import BroadcastGroup, BroadcastHost
from api.hub.compressed import CompressedLog
from api.hub.contracts import Reader, ReadingOutcome
from api.hub.encoded import EncodedLog
from api.hub.encoded_logs import EncodedLogs
from api.hub.feed import Feed
from api.hub.frame import FrameInvalid, TopNotice, parse_frame
from api.hub.page_size import page_entries
from api.hub.recheck import Recheck
from api.hub.token_runs import TokenRuns
from shared.errors import Unavailable
from shared.log.fold import Dialect
from shared.log.ids import START
from shared.log.records import Entry, Meta
from shared.log.store import Store

logger = logging.getLogger(__name__)

READ_RETRY_S = (0.05, 2.0)  # first and longest pause after a failed read; jitter comes on top
REFILL_RETRY_S = 0.25  # pause after a failed read of trimmed entries
EXPECTED_READ_S = 0.05  # an expected log of which nothing was received this long is read after all
REWRITES_MAX = 3  # reads in a row that find a rewrite; then pause, so that the reads do not spin

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Relay:
    """One generation on this node.

    Args:
        meta: as Redis has it now.
        store: reads pages and tops.
        spawn: runs a coroutine in a task of the hub.
        host: the hub, as broadcast groups use it.
        lease_s: lease of a worker, s.

    Attributes:
        meta: as last read; with the request, if any read brought the request.
        feed: the copy of the log.
        readers: all readers that have joined.
        individual_readers: the readers that do not follow in a row.
        token_runs: the feed's tokens, joined.
        recheck: the memory of this generation's rechecks.
        unlogged_end: JSON of an end that is not in the log, because the log is lost; else None.
        is_expired: the generation has ended, and its log has expired.
        is_closed: the hub has forgotten the relay.
        is_confirmed: the live channel is subscribed, or is not needed.
        is_expected: this node is about to create the generation, so its log is empty.
        holds: requests that use the relay.
        opened_at, heard_at, idle_since: loop times, s: of the creation, of the last message or
            page, and since when there are no holds.
        is_attached, attached_at: Redis counts this node as a reader (grace); time of the renewal.
    """

    def __init__(
        self, meta: Meta, store: Store, *, spawn: Spawn, host: BroadcastHost, lease_s: float
    ) -> None:
        self.meta = meta
        self.feed = Feed()
        self.readers: set[Reader] = set()
        self.individual_readers: set[Reader] = set()
        self.recheck = Recheck(lease_s)
        self.unlogged_end: bytes | None = None
        self.is_expired = False
        self.is_closed = False
        self.is_confirmed = meta.is_ended
        self.is_expected = False
        self.holds = 0
        self.opened_at = self.heard_at = self.idle_since = host.now()
        self.grace_lock = asyncio.Lock()
        self.is_attached = False
        self.attached_at = 0.0
        self._store = store
        self._spawn = spawn
        self._host = host
        self._clock = host.now
        self.token_runs = TokenRuns(self.feed)
        self._encoded = EncodedLogs(self.feed, host)
        self._broadcast_groups = self._encoded.groups
        self._is_reading = False
        self._is_refilling = False
        self._settled = asyncio.Event()
        self._is_settled = False  # mirrors the event, because each change checks it

    @property
    def generation_id(self) -> str:
        return self.meta.generation_id

    @property
    def is_over(self) -> bool:
        """Whether no further entry can arrive."""
        return self.feed.is_ended or self.is_expired or self.unlogged_end is not None

    @property
    def bytes_kept(self) -> int:
        """The memory of the relay, bytes, approximately."""
        kept = self.feed.bytes_kept + self.token_runs.bytes_kept + len(self.meta.request)
        return kept + self._encoded.bytes_kept

    def update_meta(self, meta: Meta) -> None:
        """Replace meta, but keep a request that an earlier read brought.

        A dialect that returns the request to its clients may begin its fold at any later time.
        """
        is_request_missing = self.meta.request and not meta.request
        self.meta = replace(meta, request=self.meta.request) if is_request_missing else meta

    def encoded_log(self, dialect: Dialect) -> EncodedLog:
        """Return the log in `dialect`, one object for all readers of that dialect."""
        return self._encoded.log(dialect, self.meta)

    def broadcast_group(self, dialect: Dialect, *, is_chunked: bool) -> BroadcastGroup:
        """Return the rows of `dialect`; `is_chunked` must always be the same for one dialect."""
        return self._encoded.group(dialect, self.meta, is_chunked=is_chunked)

    def compressed_log(self, dialect: Dialect, encoding: SharedEncoding) -> CompressedLog:
        """Return the log in `dialect` and `encoding`, one object for all readers of both."""
        return self._encoded.compressed(dialect, self.meta, encoding)

    # Readers

    def join(self, reader: Reader) -> None:
        """Add `reader`, and wake it: it reads from its cursor on."""
        self.readers.add(reader)
        self.individual_readers.add(reader)
        if not self.feed.ids.has(reader.position.cursor):
            # This copy may be of a replaced log: read again before the cursor counts as invalid.
            self.feed.mark_stale()
            self.read_soon()
        reader.wake()

    def leave(self, reader: Reader) -> None:
        """Remove `reader`; do nothing if it has not joined."""
        self.readers.discard(reader)
        self.individual_readers.discard(reader)
        if not self.readers:
            self._encoded.forget_fresh()

    def note_change(self) -> None:
        """Wake all readers and rows, and `wait_settled` if the log is read to its end."""
        if not self._is_settled and (self.feed.is_up_to_date or self.is_over):
            self._is_settled = True
            self._settled.set()
        for reader in self.individual_readers:
            reader.wake()
        for group in self._broadcast_groups.values():
            if group.rows:
                group.note_change()

    def disband(self) -> None:
        """Dissolve all rows: each reader finds its place in the log anew."""
        for group in self._broadcast_groups.values():
            group.disband()

    def break_off(self, outcome: ReadingOutcome) -> None:
        """Stop all readings."""
        for reader in list(self.readers):
            reader.break_off(outcome)

    async def wait_settled(self) -> None:
        """Return once the log has been read to its end, or no further entry can arrive."""
        await self._settled.wait()

    def end_unlogged(self, raw: bytes) -> None:
        """End all readings with the event `raw`, JSON, which is not in the log: its id is `0-0`."""
        if not self.is_over:
            self.unlogged_end = raw
            self.disband()
            self.note_change()

    def declare_expired(self) -> None:
        """Break all readers off: the log has expired, so that its end cannot be read any more."""
        self.is_expired = True
        self._settled.set()
        self.break_off(ReadingOutcome.LOST)

    # Memory

    def drop_copy(self) -> None:
        """Free all that is kept of the log for good: the generation was deleted."""
        self.feed.drop()
        self._convert_positions()
        self.token_runs.clear()
        self._encoded.erase()

    def trim(self) -> None:
        """Free the entries that all readers have been given; `refill_soon` reads them again."""
        feed = self.feed
        target = min([feed.count, *self._encoded.needed_after()])
        for reader in self.individual_readers:
            is_placed = reader.position.epoch == feed.epoch
            target = min(target, reader.position.seq if is_placed else 0)
        self._encoded.trim(target)
        feed.trim(target)
        self.token_runs.clear()

    def refill_soon(self) -> None:
        """Read the trimmed entries again, once for all readers; not if the log is lost for good.

        Then a reader that needs them can only be given `unlogged_end`.
        """
        if self.feed.base and self.unlogged_end is None and not self._is_refilling:
            self._is_refilling = True
            self._spawn(self._refill())

    async def _refill(self) -> None:
        feed, epoch = self.feed, self.feed.epoch
        head: list[Entry] = []
        try:
            while len(head) < feed.base and epoch == feed.epoch:
                start = head[-1][0] if head else START
                page = await self._store.page(self.generation_id, start, page_entries(self.feed))
                if head and (not page or page[0][0] != start):
                    break
                head += page[1:] if head else page
                if len(page) < 2:
                    break
            if not feed.refill(epoch, head):
                self.repair()
                await asyncio.sleep(REFILL_RETRY_S)
        except Unavailable:
            await asyncio.sleep(REFILL_RETRY_S)
        finally:
            self._is_refilling = False
            self.note_change()  # a reader that still needs trimmed entries asks for them again

    # Messages of the live channel

    def offer(self, payload: bytes) -> None:
        """Take one message of the live channel. Does not wait and does not raise."""
        self.heard_at = self._clock()
        if self.feed.append_plain_frame(payload):
            self.note_change()
        else:
            self._offer_parsed(payload)

    def _offer_parsed(self, payload: bytes) -> None:
        count_before = self.feed.count
        try:
            frame = parse_frame(payload)
        except FrameInvalid as exc:
            logger.warning(
                "live frame invalid",
                extra={"generation_id": self.generation_id, "reason": str(exc)},
            )
            self.feed.mark_stale()
        else:
            if isinstance(frame, TopNotice):
                self.feed.offer_top(frame.top)
            else:
                self.feed.offer_frame(frame)
        if self.feed.count != count_before or self.feed.is_ended:
            self.note_change()
        self.read_soon()

    def confirm(self) -> None:
        """Note that the live channel is subscribed, perhaps again, and read what came before."""
        is_first, self.is_confirmed = not self.is_confirmed, True
        if is_first and self.is_expected:
            return  # the log was empty: nothing came before
        self.feed.mark_stale()
        self.read_soon()

    def prepare_read(self) -> None:
        """Read what is missing for a new request; an expected log gets `EXPECTED_READ_S` first."""
        if self.is_expected and not self.holds:
            # The first frame will arrive, unless a worker published it before our SUBSCRIBE.
            self._host.call_at(self._clock() + EXPECTED_READ_S, self._end_expectation)
        else:
            self.read_soon()

    def _end_expectation(self) -> None:
        self.is_expected = False
        self.read_soon()

    def repair(self) -> None:
        """Read the log again from the copy's top, because something may be missing."""
        self.feed.mark_stale()
        if not self.feed.is_up_to_date:
            self._settled.clear()
            self._is_settled = False
        self.read_soon()

    # Reading the log

    def read_soon(self) -> None:
        """Start a read if one is needed and allowed, and none is running."""
        if (
            self.feed.is_page_due
            and self.is_confirmed
            and not self._is_reading
            and not self.is_over
        ):
            self._is_reading = True
            self._spawn(self._read())

    async def _read(self) -> None:
        """Read pages until the log's end; pause after each failure, and try again."""
        pause_s = READ_RETRY_S[0]
        rewrites = 0
        try:
            while self.feed.is_page_due and not self.is_over and not self.is_closed:
                try:
                    was_dropped = await self._read_page()
                except Unavailable:
                    await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
                    pause_s = min(2 * pause_s, READ_RETRY_S[1])
                    continue
                if was_dropped is None:
                    break  # the generation is absent: the recheck decides
                rewrites = rewrites + 1 if was_dropped else 0
                if rewrites > REWRITES_MAX:
                    await asyncio.sleep(READ_RETRY_S[1])
        finally:
            self._is_reading = False

    async def _read_page(self) -> bool | None:
        """Read one page.

        Returns:
            True: Redis has rewritten the log, and the copy was dropped. None: Redis does not have
            the generation.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        feed = self.feed
        request = feed.request_page(page_entries(self.feed))
        try:
            page = await self._store.page(self.generation_id, request.start, request.count)
            is_present = bool(page) or await self._is_present()
        except BaseException:
            feed.abandon_page(request)
            raise
        if not is_present or self.unlogged_end is not None:
            # The worker may restore the log with the same ids: keep the copy for now. The log stays
            # silent, so that the recheck looks at it also while a refill is tried again and again.
            feed.abandon_page(request)
            return None
        self.heard_at = self._clock()
        was_dropped = feed.offer_page(request, page)
        if was_dropped:
            logger.warning("log rewritten", extra={"generation_id": self.generation_id})
            self._convert_positions()
        self.note_change()
        return was_dropped

    async def _is_present(self) -> bool:
        """Whether an empty page is an empty log, and not an absent generation or expired log."""
        if self.feed.count == 0 and not self.meta.is_ended:
            return True
        top = (await self._store.tops([self.generation_id]))[0]
        if self.meta.is_ended and top.id is None:
            self.declare_expired()
        return top.status not in (None, "sealed") and not self.is_expired

    def _convert_positions(self) -> None:
        """Convert each reader's place back to a cursor, after the feed was dropped."""
        self.disband()
        for reader in self.readers:
            reader.position.unplace(self.feed.former_ids, self._clock())
