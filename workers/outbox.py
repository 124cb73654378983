"""What one attempt writes: ids and bytes given once, sent until accepted, written again when lost.

Holds the whole log of a generation as its holder knows it (what it found at takeover, too), because
Redis may lose it. Decides what to send next and what each answer means; does no I/O and is given
the time.

    push() ──▶ pending ──encode──▶ log ──take()──▶ Append ──answer()──▶ accepted
                                    ▲                         │ behind, lost
                                    └────────── Restore ◀─────┘

Invariant: an event gets its id and its bytes once; a resend is the same, byte for byte. Only what
has no bytes yet may be joined: pieces that arrive while a call is under way leave as one event.
Source: docs/architecture.md, "The write protocol".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.errors import Unavailable
from shared.log.events import AnyEvent, End, Reasoning, Status, Token, encode
from shared.log.ids import START, EventId
from shared.log.records import (
    Append,
    Behind,
    Ended,
    Entry,
    Fenced,
    Lost,
    Moved,
    Ok,
    Writing,
)

BATCH_ENTRIES_MAX = 64
BATCH_BYTES_MAX = 262_144
JOINED_CHARS_MAX = 8_192  # an event is one write to every reader; and joining copies
RESTORE_ENTRIES_MAX = 1_000  # Lua's unpack fails past about 8,000 values
RESTORE_WITHIN_S = 10.0  # after its last accepted call; later the generation may be sealed

Stopped = Literal["ended", "fenced", "lost"]


@dataclass(frozen=True, slots=True)
class Restore:
    """Entries to write again on top of `top`; with meta's fields where that may be gone, too."""

    top: EventId
    fields: Mapping[bytes, bytes]
    entries: Sequence[Entry]


class Outbox:
    """The log of one generation in the hands of its holder.

    Args:
        found: what the log held before this attempt, in order.
        start: this attempt's `start`, already accepted.
        fields: meta as it was at the begin.
        now_s: when the begin was sent.
        restore_within_s: of its last accepted call; at most as long as an end is remembered, or a
            holder that slept would take what was ended and forgotten for lost.
        lease_every_s: an append pushes the lease on when nothing has done so for this long.
    """

    def __init__(
        self,
        generation_id: str,
        token: str,
        *,
        found: Sequence[Entry],
        start: Entry,
        fields: Mapping[bytes, bytes],
        now_s: float,
        restore_within_s: float = RESTORE_WITHIN_S,
        lease_every_s: float = 0.0,
    ) -> None:
        self.generation_id = generation_id
        self.token = token
        self.attempt = start[0].attempt
        self.log: list[Entry] = [*found, start]
        assert all(event_id.seq == n for n, (event_id, _) in enumerate(self.log, 1))
        self.bytes_kept = sum(len(raw) for _, raw in self.log)
        self.taken_s = -math.inf  # when the last call was taken
        self.bytes_unsent = 0  # of events that have no accepted entry yet, about
        self.stopped: Stopped | None = None
        self._fields = fields
        self._accepted = len(self.log)  # how many entries stand in Redis, as far as we know
        self._accepted_most = len(self.log)
        self._restore_on: EventId | None = None
        self._restore_fields = False
        self._pending: list[AnyEvent] = []
        self._status: Status | None = None  # once the end has been pushed
        # What is under way: entries after it is accepted, sent at, whether it pushes the lease.
        self._flight: tuple[int, float, bool] | None = None
        self._last_ok_s = self._leased_at_s = now_s
        self._lease_every_s = lease_every_s
        self._restore_within_s = min(restore_within_s, RESTORE_WITHIN_S)

    def push(self, event: AnyEvent) -> None:
        """Add an event; text joins the piece before it while that has no bytes yet."""
        assert self._status is None, "nothing after the end"
        if isinstance(event, End):
            self._status = event.status
        self.bytes_unsent += _size(event)
        if isinstance(event, Token | Reasoning):
            last = self._pending[-1] if self._pending else None
            if type(last) is type(event):
                assert isinstance(last, Token | Reasoning)
                if len(last.text) + len(event.text) <= JOINED_CHARS_MAX:
                    self._pending[-1] = type(event)(last.text + event.text)
                    return
        self._pending.append(event)

    @property
    def is_settled(self) -> bool:
        """Whether everything pushed stands in Redis, or never will."""
        return self.stopped is not None or (
            not self._pending and self._accepted == len(self.log) and self._restore_on is None
        )

    @property
    def is_behind(self) -> bool:
        """Whether there are entries that Redis should have by now: more than went into one call."""
        return self._accepted < len(self.log) or self._restore_on is not None

    def take(self, now_s: float) -> Append | Restore | None:
        """Return the next call to make, or None; each must be answered before the next."""
        if self._flight is not None or self.is_settled:
            return None
        step = self._restore() if self._restore_on is not None else self._append(now_s)
        self.taken_s = now_s
        upto = self._accepted + len(step.entries)
        self._flight = (upto, now_s, isinstance(step, Append) and step.pushes_lease)
        return step

    def answer(self, outcome: Writing | Moved | Unavailable, now_s: float) -> None:
        """Take in what the call that is under way came to."""
        assert self._flight is not None
        upto, sent_at_s, pushed_lease = self._flight
        self._flight = None
        match outcome:
            case Unavailable():
                pass  # it may have happened: the same is sent again
            case Ok():
                self._last_ok_s = sent_at_s
                if pushed_lease:
                    self._leased_at_s = max(self._leased_at_s, sent_at_s)
                self._accept(upto)
            case Ended():
                self.stopped = "ended"
            case Fenced():
                self.stopped = "fenced"
            case Behind(top):
                self._go_back(top, now_s, lost=False)
            case Lost(top) | Moved(top):
                self._go_back(top, now_s, lost=True)

    def renewed(self, outcome: Writing | Unavailable, sent_at_s: float, now_s: float) -> None:
        """Take in the answer of a renewal, which runs beside the appends."""
        match outcome:
            case Ok():
                self._last_ok_s = max(self._last_ok_s, sent_at_s)
                self._leased_at_s = max(self._leased_at_s, sent_at_s)
            case Ended():
                self.stopped = "ended"
            case Fenced():
                self.stopped = "fenced"
            case Lost(top) if self._flight is None and self._restore_on is None:
                self._go_back(top, now_s, lost=True)

    def forgo(self, reason: Stopped) -> None:
        """Stop writing: told from elsewhere that this generation is over for us."""
        self.stopped = self.stopped or reason

    def _accept(self, upto: int) -> None:
        self._accepted = upto
        self._accepted_most = max(self._accepted_most, upto)
        if self._restore_on is not None:
            self._restore_on = None if upto >= self._accepted_most else self.log[upto - 1][0]
            self._restore_fields = False
        if upto == len(self.log):
            self.bytes_unsent = sum(map(_size, self._pending))
            if self._status is not None and not self._pending:
                self.stopped = "ended"

    def _go_back(self, top: EventId, now_s: float, *, lost: bool) -> None:
        """Redis has less than we had accepted: write it again, if the rules allow it."""
        if lost and now_s - self._last_ok_s >= self._restore_within_s:
            self.stopped = "lost"
            return
        is_mine = top == START or (top.seq <= len(self.log) and self.log[top.seq - 1][0] == top)
        if not is_mine:
            self.stopped = "lost"
            return
        self._accepted = top.seq
        self._restore_on = top
        self._restore_fields = lost

    def _restore(self) -> Restore:
        assert self._restore_on is not None
        chunk = self._chunk(self._accepted, self._accepted_most, RESTORE_ENTRIES_MAX)
        return Restore(self._restore_on, self._fields if self._restore_fields else {}, chunk)

    def _append(self, now_s: float) -> Append:
        self._encode()
        chunk = self._chunk(self._accepted, len(self.log), BATCH_ENTRIES_MAX)
        has_end = self._status is not None and self._accepted + len(chunk) == len(self.log)
        return Append(
            self.generation_id,
            self.token,
            self.attempt,
            self._accepted,
            [raw for _, raw in chunk],
            self._status if has_end and not self._pending else None,
            before_attempt=self.log[self._accepted - 1][0].attempt if self._accepted else 0,
            pushes_lease=now_s - self._leased_at_s >= self._lease_every_s,
        )

    def _encode(self) -> None:
        log, attempt = self.log, self.attempt
        for event in self._pending:
            raw = encode(event)
            log.append((EventId(attempt, len(log) + 1), raw))
            self.bytes_kept += len(raw)
        self._pending.clear()

    def _chunk(self, first: int, last: int, entries_max: int) -> list[Entry]:
        if last - first == 1:  # as nearly always
            return [self.log[first]]
        size = 0
        chunk: list[Entry] = []
        for entry in self.log[first : min(last, first + entries_max)]:
            size += len(entry[1])
            if chunk and size > BATCH_BYTES_MAX:
                break
            chunk.append(entry)
        return chunk


def _size(event: AnyEvent) -> int:
    """About how many bytes it will have."""
    if isinstance(event, Token | Reasoning):
        return len(event.text if event.text.isascii() else event.text.encode())
    return len(encode(event))
