"""Broken feeds: the state machine of test_feed.py must find the defect of each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from api.hub.feed import Feed, PageRequest
from api.hub.frame import Entry, LiveFrame
from shared.log.ids import START, EventId
from tests.stateful.test_feed import FeedMachine


class KnowsBySeq(Feed):
    """Skips entries by seq alone, as if each seq had only one text."""

    def _append_frame(self, frame: LiveFrame) -> bool:
        if frame.prev.seq > self.count:
            return False
        for event_id, raw in frame.entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        return True


class ComparesPagesBySeq(Feed):
    """Accepts a page as a continuation if its seqs fit."""

    def _contradicts(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        return bool(entries) and entries[0][0].seq != max(1, request.start.seq)


class ReadsExclusively(Feed):
    """Reads from after its own top, so it never notices that its top is gone."""

    def _contradicts(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        return False

    def offer_page(self, request: PageRequest, entries: Sequence[Entry]) -> bool:
        return super().offer_page(request, [e for e in entries if e[0].seq > self.count])


class IgnoresPrev(Feed):
    """Appends any entry with the next seq."""

    def _append_frame(self, frame: LiveFrame) -> bool:
        if any(e.seq <= self.count and not self.ids.has(e) for e, _ in frame.entries):
            return False
        if frame.entries and frame.entries[0][0].seq > self.count + 1:
            return False
        for event_id, raw in frame.entries:
            if event_id.seq > self.count:
                self._append(event_id, raw)
        return True


class TrustsOldPages(Feed):
    """Accepts a page as the present log although it was requested before a frame was missed."""

    def mark_stale(self) -> None:
        super().mark_stale()
        self._stale_at = min(self._stale_at, self._requests - 1)


class ForgetsWhatWaits(Feed):
    """Drops the frames that arrive during a read."""

    def _finish_reading(self, number: int) -> None:
        self._buffer.clear()
        self._stale_at = -1
        super()._finish_reading(number)


class KeepsItsCopy(Feed):
    """Notices a rewrite, but continues to read at its old place."""

    def drop(self) -> None:
        pass


class ForgetsOnOverflow(Feed):
    """Forgets buffered frames without reading them from the log."""

    def _buffer_frame(self, frame: LiveFrame) -> None:
        pass

    def mark_stale(self) -> None:
        pass


class FollowsBySeq(Feed):
    """Accepts a frame that begins at the copy's last seq, in any attempt."""

    def append_plain_frame(self, payload: bytes) -> bool:
        prev, *lines = payload.split(b"\n")
        if not lines or int(prev.partition(b"-")[2]) != self.count:
            return False
        for line in lines:
            name, _, raw = line.partition(b" ")
            attempt, _, seq = name.partition(b"-")
            self._append(EventId(int(attempt), int(seq)), raw)
        return True


# With the seed: from it the machine needs 4 to 43 examples. From any seed it needs up to 1,000.
MUTANTS = {
    FollowsBySeq: 3,
    KnowsBySeq: 6,
    ComparesPagesBySeq: 1,
    ReadsExclusively: 1,
    IgnoresPrev: 3,
    TrustsOldPages: 6,
    ForgetsWhatWaits: 6,
    KeepsItsCopy: 1,
    ForgetsOnOverflow: 1,
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_feed_is_found(mutant: type[Feed]) -> None:
    # A mutant whose method was renamed in Feed would break nothing.
    overridden = [name for name, value in vars(mutant).items() if callable(value)]
    assert overridden and all(hasattr(Feed, name) for name in overridden)

    @seed(MUTANTS[mutant])
    class Machine(FeedMachine):
        feed_class = mutant

    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=1_500,
                stateful_step_count=30,
                deadline=None,
                database=None,
                print_blob=False,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )


def test_start_is_before_the_first_entry() -> None:
    assert Feed().top == START
