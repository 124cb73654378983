"""The write side of one attempt: gives ids and bytes to events, and decides what to send next.

Keeps the whole log of the generation, including the entries of earlier attempts, because Redis may
lose any of them. Decides which call comes next and how each outcome changes the state. Does no
I/O; the caller passes the time.

    push() ──▶ pending ──encode──▶ log ──take()──▶ Append ──apply_outcome()──▶ accepted
                                    ▲                            │ behind, lost
                                    └────────── Restore ◀────────┘

Invariant: an event gets its id and its bytes once; a resend has the same bytes. Only events without
bytes may be joined: text that arrives during a call leaves as one event.
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
    RESTORE_WITHIN_S,
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
JOINED_CHARS_MAX = 8_192  # each event is one write to every reader, and each join copies the text
RESTORE_ENTRIES_MAX = 1_000  # Lua's unpack fails at about 8,000 values

StopCause = Literal["ended", "fenced", "lost"]


@dataclass(frozen=True, slots=True)
class RestoreBatch:
    """Entries to write again after a loss.

    Attributes:
        top: the newest entry in Redis; `entries` follow it.
        fields: the fields of meta; empty where meta cannot be lost.
    """

    top: EventId
    fields: Mapping[bytes, bytes]
    entries: Sequence[Entry]


class Outbox:
    """The log of one generation, as its holder writes it.

    Args:
        found: the entries of earlier attempts, in order.
        start: the `start` entry of this attempt; Redis has already accepted it. Without bytes: the
            entry is not written yet, and the first event that is pushed is `start`.
        fields: the fields of meta at the begin.
        now_s: when the begin was sent.
        restore_within_s: how long after the last accepted call a restore is allowed, at most
            `RESTORE_WITHIN_S`. Must not be longer than Redis keeps an ended generation: a holder
            that slept longer would take a generation that ended and expired for a lost one.
        lease_every_s: an append extends the lease when no call has done so for this long.

    Attributes:
        log: all entries, in order; also those that Redis has not accepted yet.
        log_bytes: the size of all entries in `log`.
        last_take_s: when `take` last returned a call; -inf before the first.
        bytes_unsent: estimated size of the events that Redis has not accepted yet.
        stopped: why nothing more may be written; None while this worker is the holder.
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
        self.log: list[Entry] = [*found, start] if start[1] else [*found]
        assert all(event_id.seq == n for n, (event_id, _) in enumerate(self.log, 1))
        self.log_bytes = sum(len(raw) for _, raw in self.log)
        self.last_take_s = -math.inf
        self.bytes_unsent = 0
        self.stopped: StopCause | None = None
        self._fields = fields
        self._accepted = len(self.log)  # number of entries in Redis, as far as we know
        self._accepted_max = len(self.log)  # the highest `_accepted` so far: restore up to here
        self._restore_top: EventId | None = None  # set while a restore is needed
        self._restores_fields = False
        self._pending: list[AnyEvent] = []
        self._status: Status | None = None  # set when the end is pushed
        # The call in flight: `_accepted` after success, when it was sent, if it extends the lease.
        self._flight: tuple[int, float, bool] | None = None
        self._last_ok_s = self._leased_at_s = now_s
        self._lease_every_s = lease_every_s
        self._restore_within_s = min(restore_within_s, RESTORE_WITHIN_S)

    def push(self, event: AnyEvent) -> None:
        """Add an event. Text is joined to a pending event of the same type, if that is the last."""
        assert self._status is None, "nothing after the end"
        if isinstance(event, End):
            self._status = event.status
        self.bytes_unsent += _size(event)
        if isinstance(event, Token | Reasoning):
            last = self._pending[-1] if self._pending else None
            if type(last) is type(event) and event.extra is None:
                assert isinstance(last, Token | Reasoning)
                is_joined = last.extra is None and last.agent == event.agent
                if is_joined and len(last.text) + len(event.text) <= JOINED_CHARS_MAX:
                    self._pending[-1] = type(event)(last.text + event.text, agent=event.agent)
                    return
        self._pending.append(event)

    @property
    def lacks_start(self) -> bool:
        """Whether this attempt has no `start` yet."""
        return not self._pending and (not self.log or self.log[-1][0].attempt != self.attempt)

    def whole_log(self) -> Sequence[Entry]:
        """Return all entries, in order, with the events that were pushed last.

        Text that is pushed later is not joined to these.
        """
        self._encode()
        return self.log

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to send: Redis accepted everything, or writing has stopped."""
        return self.stopped is not None or (
            not self._pending and self._accepted == len(self.log) and self._restore_top is None
        )

    @property
    def has_backlog(self) -> bool:
        """Whether encoded entries wait: more than one call can carry, or entries to restore."""
        return self._accepted < len(self.log) or self._restore_top is not None

    def take(self, now_s: float) -> Append | RestoreBatch | None:
        """Return the next call to make; None: nothing to send, or a call is in flight.

        Pass the outcome to `apply_outcome` before the next `take`.
        """
        if self._flight is not None or self.is_settled:
            return None
        step = self._restore() if self._restore_top is not None else self._append(now_s)
        self.last_take_s = now_s
        upto = self._accepted + len(step.entries)
        self._flight = (upto, now_s, isinstance(step, Append) and step.pushes_lease)
        return step

    def apply_outcome(self, outcome: Writing | Moved | Unavailable, now_s: float) -> None:
        """Apply the outcome of the call in flight."""
        assert self._flight is not None
        upto, sent_at_s, pushed_lease = self._flight
        self._flight = None
        match outcome:
            case Unavailable():
                pass  # Redis may have executed the call: send the same bytes again
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

    def apply_renewal(self, outcome: Writing | Unavailable, sent_at_s: float, now_s: float) -> None:
        """Apply the outcome of a lease renewal. Renewals run beside the appends."""
        match outcome:
            case Ok():
                self._last_ok_s = max(self._last_ok_s, sent_at_s)
                self._leased_at_s = max(self._leased_at_s, sent_at_s)
            case Ended():
                self.stopped = "ended"
            case Fenced():
                self.stopped = "fenced"
            case Lost(top) if self._flight is None and self._restore_top is None:
                self._go_back(top, now_s, lost=True)

    def abandon(self, cause: StopCause) -> None:
        """Stop writing, because this worker released the generation or it was cancelled.

        The first cause stays.
        """
        self.stopped = self.stopped or cause

    def _accept(self, upto: int) -> None:
        self._accepted = upto
        self._accepted_max = max(self._accepted_max, upto)
        if self._restore_top is not None:
            self._restore_top = None if upto >= self._accepted_max else self.log[upto - 1][0]
            self._restores_fields = False
        if upto == len(self.log):
            self.bytes_unsent = sum(map(_size, self._pending))
            if self._status is not None and not self._pending:
                self.stopped = "ended"

    def _go_back(self, top: EventId, now_s: float, *, lost: bool) -> None:
        """Restore accepted entries that Redis has lost, or stop where the rules forbid it."""
        if lost and now_s - self._last_ok_s >= self._restore_within_s:
            self.stopped = "lost"
            return
        is_own = top == START or (top.seq <= len(self.log) and self.log[top.seq - 1][0] == top)
        if not is_own:
            self.stopped = "lost"
            return
        self._accepted = top.seq
        self._restore_top = top
        self._restores_fields = lost

    def _restore(self) -> RestoreBatch:
        assert self._restore_top is not None
        chunk = self._chunk(self._accepted, self._accepted_max, RESTORE_ENTRIES_MAX)
        return RestoreBatch(self._restore_top, self._fields if self._restores_fields else {}, chunk)

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
            self.log_bytes += len(raw)
        self._pending.clear()

    def _chunk(self, first: int, last: int, entries_max: int) -> list[Entry]:
        if last - first == 1:  # the usual case
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
    """Estimate the encoded size of an event, bytes."""
    if isinstance(event, Token | Reasoning) and event.extra is None:
        return len(event.text if event.text.isascii() else event.text.encode())
    return len(encode(event))
