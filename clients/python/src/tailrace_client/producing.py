"""The events of a producer between their writing and the log. Without I/O and without a clock.

Each event gets its number when it is first sent, and keeps it. So a repeated append is the same
append, and the server writes nothing twice. The last `KEPT_BYTES` of events that the server has
acknowledged stay here: if Redis loses its newest events, the server names the number that it
expects, and these events are sent again. Source: docs/producers.md.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from tailrace_client.errors import TailraceError, usage
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff

EVENTS_MAX = 500  # of one append; the server takes 1,000
BYTES_MAX = 524_288  # of one append, about; the server takes 1 MiB
WAITING_BYTES_MAX = 1_048_576  # written and not sent: the writer then waits
KEPT_BYTES = 2_097_152  # acknowledged, and kept for a server that lost them
JOINED_CHARACTERS_MAX = 65_536
GATHER_S = 0.02  # between two appends, so that tokens leave together
LEAVE_S = 10.0  # a block that an exception leaves waits so long for its last events


class Append(NamedTuple):
    """One request to the server."""

    seq: int
    events: list[dict[str, Any]]

    @property
    def body(self) -> dict[str, Any]:
        return {"seq": self.seq, "events": self.events} if self.events else {}


class Journal:
    """The events of one producer.

    Args:
        begun: the answer of the server that began.

    Attributes:
        status: of the generation, as the server last told it.
        last_event_id: of the newest event that the log has.
    """

    def __init__(self, begun: Mapping[str, Any]) -> None:
        self.id = str(begun["id"])
        self.attempt = int(begun["attempt"])
        self.token = str(begun["producer_token"])
        self.lease_s = float(begun["lease_s"])
        self.status = str(begun["status"])
        self.last_event_id = f"{self.attempt}-{int(begun['next_seq']) - 1}"
        self.error: TailraceError | None = None
        self._next_seq = int(begun["next_seq"])  # of the first event in `_numbered`
        self._numbered: deque[tuple[dict[str, Any], int]] = deque()  # sent at least once, and bytes
        self._kept: deque[tuple[dict[str, Any], int]] = deque()  # acknowledged, and bytes
        self._waiting: deque[tuple[dict[str, Any], int]] = deque()  # never sent, and bytes
        self.waiting_bytes = self._kept_bytes = 0
        self._has_end = False

    @property
    def is_settled(self) -> bool:
        """Whether the log has everything that was written here."""
        return not self._waiting and not self._numbered

    @property
    def is_over(self) -> bool:
        return self.error is not None or (self._has_end and self.is_settled)

    @property
    def has_end(self) -> bool:
        return self._has_end

    def write(self, kind: str, members: Mapping[str, Any]) -> None:
        """Take one event.

        Raises:
            TailraceError: the generation has ended, this producer was fenced, or `end` was written.
        """
        if self.error is not None:
            raise self.error
        if self._has_end:
            raise usage("the end is written: nothing may follow it")
        event = {"type": kind, **{name: value for name, value in members.items() if value != ""}}
        if kind == "data":
            event["value"] = members["value"]
        self._has_end = kind == "end"
        last = self._waiting[-1][0] if self._waiting else {}
        is_same = last.get("type") == kind and last.get("agent") == event.get("agent")
        if kind in ("token", "reasoning") and is_same:
            if len(last["text"]) + len(event["text"]) <= JOINED_CHARACTERS_MAX:
                size = len(event["text"].encode())
                joined = {**last, "text": last["text"] + event["text"]}
                self._waiting[-1] = (joined, self._waiting[-1][1] + size)
                self.waiting_bytes += size
                return
        size = _size(event)
        self._waiting.append((event, size))
        self.waiting_bytes += size

    def take(self) -> Append:
        """Return the next append; the same again until it has an answer. May have no events."""
        if not self._numbered:
            size = 0
            while self._waiting and len(self._numbered) < EVENTS_MAX:
                size += self._waiting[0][1]
                if self._numbered and size > BYTES_MAX:
                    break
                found = self._waiting.popleft()
                self.waiting_bytes -= found[1]
                self._numbered.append(found)
        events: list[dict[str, Any]] = []
        size = 0
        for event, event_size in list(self._numbered)[:EVENTS_MAX]:
            size += event_size
            if events and size > BYTES_MAX:
                break
            events.append(event)
        return Append(self._next_seq, events)

    def accept(self, append: Append, answer: Mapping[str, Any]) -> None:
        """Take the answer of the server to an append."""
        for _ in append.events:
            found = self._numbered.popleft()
            self._next_seq += 1
            self._kept.append(found)
            self._kept_bytes += found[1]
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popleft()[1]
        self.status = str(answer["status"])
        self.last_event_id = str(answer["last_event_id"])
        if self.status != "running" and not (self._has_end and self.is_settled):
            self.error = ended(self.status)

    def pause_s(self, shared: Shared, back_off: BackOff, exc: Exception) -> float | None:
        """Return the pause before the same append is sent again; None: it is not sent again."""
        if not isinstance(exc, TailraceError):  # for example of the caller's token function
            self.error = usage(f"the producer cannot send: {exc!r}")
            self.error.__cause__ = exc
            return None
        try:
            # A server without room is asked for as long as one that is away: the lease runs on.
            return shared.pause_s(back_off, exc, full_s=math.inf)
        except TailraceError as error:
            self.refuse(error)
            return None

    def refuse(self, error: TailraceError) -> None:
        """Take a refusal: go back to the number that the server expects, or stop."""
        expected = error.members.get("next_seq")
        if error.code == "sequence_gap" and isinstance(expected, int):
            back = self._next_seq - expected
            if 0 < back <= len(self._kept):
                for _ in range(back):
                    found = self._kept.pop()
                    self._kept_bytes -= found[1]
                    self._numbered.appendleft(found)
                self._next_seq = expected
                return
        if error.code == "generation_ended":
            self.status = str(error.members.get("status", ""))
        self.error = error


def ended(status: str) -> TailraceError:
    """Return the error of a generation that was ended by others."""
    message = f"this generation has ended with the status {status}: stop producing"
    return TailraceError(
        "generation_ended", message, retryable=False, status=409, members={"status": status}
    )


def begin_body(members: Mapping[str, Any], lease_s: float | None) -> dict[str, Any]:
    """Return the body that creates a generation for a producer."""
    given = {name: value for name, value in members.items() if value is not None}
    return {**given, "producer": True if lease_s is None else {"lease_s": lease_s}}


def end_of(exc: BaseException | None, *, is_cancelled: bool) -> dict[str, Any]:
    """Return the members of the `end` of a block: an error of the caller is named by its class."""
    if exc is None:
        return {}
    if is_cancelled:
        return {"status": "cancelled"}
    message = f"the producer failed: {type(exc).__name__}"
    error = {"code": "producer_error", "message": message, "retryable": True}
    return {"status": "failed", "error": error}


def _size(event: Mapping[str, Any]) -> int:
    try:
        return len(json.dumps(event, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError) as exc:
        raise usage(f"an event must be JSON: {exc}") from None
