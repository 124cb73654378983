"""The history checker: compares the events that readers got with the promises of docs/protocol.md.

Readers record every connection, every event and every way a connection stopped. `History.check`
answers with a list of violations, each a sentence; an empty list is the proof. One set of
invariants for the faults, the soak and the benchmarks:

    1 no gap       every seq arrives; a token may stand for several, under the id of the last
    2 no repeat    no id arrives twice
    3 order        ids rise strictly, except after a `reset` with id 0-0
    4 one end      exactly one, nothing after it, and no connection that ends cleanly without it
    5 attempts     never go down; each opens with `start`, or is the lone `end` of a cancel
    6 one text     readers, log, snapshot and what was expected are equal, and an id has one history
    7 it ends      every accepted generation, within a bound

Pure: no I/O and no clock. Times are given by whoever records. Does not import the system under
test: it reads the wire's own words.
Source: docs/protocol.md, "Events" and "Guarantees".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.support.deliveries import (
    Closed,
    Delivery,
    Reading,
    Record,
    fold_text,
    parse_id,
)

Id = tuple[int, int]
VOID: Id = (0, 0)
# Close codes that tell a client to come back; 1006 is what it sees of a socket that broke.
RESUME_CODES = frozenset({1006, 1012, 1013, *range(4000, 4500)})


class History:
    """The records of one run."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def accepted(
        self, generation_id: str, *, at: float, expected_text: str | None = None
    ) -> Record:
        """Note an accepted prompt: from here on it is owed an end."""
        assert generation_id not in self.records, "a generation id was given out twice"
        self.records[generation_id] = record = Record(generation_id, at, expected_text)
        return record

    def check(self, *, bound_s: float) -> list[str]:
        """Return every violation, in words; `bound_s` is from acceptance to a reading's end."""
        return [
            f"{record.generation_id}: {problem}"
            for record in self.records.values()
            for problem in check_record(record, bound_s=bound_s)
        ]

    def figures(self) -> dict[str, float]:
        """Sums over the run, for the one line that a soak prints."""
        readings = [r for record in self.records.values() for r in record.readings]
        breaks = [
            s for r in readings for s in r.steps if isinstance(s, Closed) and s.how != "clean"
        ]
        return {
            "generations": len(self.records),
            "readings": len(readings),
            "events": sum(r.count for r in readings),
            "breaks": len(breaks),
            "resets": sum(r.resets for r in readings),
            "longest_gap_s": max((r.longest_gap_s() for r in readings), default=0.0),
        }


def check_record(record: Record, *, bound_s: float) -> list[str]:
    """All invariants for one generation."""
    problems: list[str] = []
    for reading in record.readings:
        problems += _named(reading, check_reading(reading))
    problems += _check_bound(record, bound_s)
    problems += _check_one_history(record.readings)
    if record.log is not None:
        problems += [f"log: {p}" for p in check_log(record.log)]
        for reading in record.readings:
            problems += _named(reading, check_against_log(reading, record.log))
    problems += _check_texts(record)
    return problems


def check_reading(reading: Reading) -> list[str]:
    """Invariants 1 to 5 for one reader, from what it saw alone."""
    problems: list[str] = []
    top, has_ended = VOID, False
    for step in reading.steps:
        if isinstance(step, Delivery):
            if has_ended:
                problems.append(f"{step.type} {step.event_id} after the end")
            top = _check_step(top, step, problems)
            has_ended = has_ended or step.type == "end"
        elif isinstance(step, Closed) and not has_ended and _is_silent(step.how):
            problems.append(
                f"silent end: the connection ended as {step.how!r} without an end event"
            )
    if not has_ended:
        last = next((s.how for s in reversed(reading.steps) if isinstance(s, Closed)), "nothing")
        problems.append(f"no end: the reader gave up after {last!r}, at {reading.cursor!r}")
    return problems


def check_log(log: Sequence[Delivery], *, is_finished: bool = True) -> list[str]:
    """Invariants of the log itself: it is never joined, so each seq is there."""
    problems: list[str] = []
    top = VOID
    for entry in log:
        before = top
        top = _check_step(top, entry, problems)
        if entry.type == "token" and top[1] != before[1] + 1:
            problems.append(f"gap: token {entry.event_id} after {_text(before)}")
    ends = [entry for entry in log if entry.type == "end"]
    if is_finished and len(ends) != 1:
        problems.append(f"{len(ends)} end events")
    if ends and log[-1].type != "end":
        problems.append(f"{log[-1].type} {log[-1].event_id} after the end")
    return problems


def check_against_log(reading: Reading, log: Sequence[Delivery]) -> list[str]:
    """What came since the last `reset 0-0` is in the log, joined pieces letter for letter."""
    problems: list[str] = []
    places = {entry.event_id: place for place, entry in enumerate(log)}
    expected = 0
    for delivery in _since_void(reading.deliveries):
        if delivery.event_id == "0-0":  # `end lost`: the log is gone
            continue
        place = places.get(delivery.event_id)
        if place is None:
            problems.append(f"{delivery.type} {delivery.event_id} is not in the log")
            continue
        covered = list(log[min(expected, place) : place + 1])
        if not _stands_for(delivery, covered):
            problems.append(
                f"{delivery.type} {delivery.event_id} differs from the log: {covered!r}"
            )
        expected = place + 1
    return problems


def _check_step(top: Id, step: Delivery, problems: list[str]) -> Id:
    """Judge one event after `top`; return the new top."""
    try:
        here = parse_id(step.event_id)
    except ValueError:
        problems.append(f"malformed id {step.event_id!r}")
        return top
    if here == VOID:
        return _check_void(top, step, problems)
    name = f"{step.type} {step.event_id}"
    if here == top:
        problems.append(f"repeat: {name}")
        return top
    if here < top or here[1] <= top[1]:
        problems.append(f"order: {name} after {_text(top)}")
        return top
    if here[1] > top[1] + 1 and not _may_be_joined(top, here, step):
        problems.append(f"gap: {name} after {_text(top)}")
    if step.type == "start":
        if step.fields.get("attempt") != here[0]:
            problems.append(f"{name} says attempt {step.fields.get('attempt')}")
    elif here[0] != top[0] and step.type != "end":
        problems.append(f"attempt {here[0]} opens with {step.type}, not start")
    return here


def _check_void(top: Id, step: Delivery, problems: list[str]) -> Id:
    """Only a reset, or the end of a generation that Redis lost, has the id 0-0."""
    code = (step.fields.get("error") or {}).get("code")
    if step.type == "reset":
        return VOID
    if step.type != "end" or code != "lost":
        problems.append(f"{step.type} with id 0-0")
    return top


def _may_be_joined(top: Id, here: Id, step: Delivery) -> bool:
    """Only tokens of one attempt are joined."""
    return step.type == "token" and here[0] == top[0]


def _is_silent(how: str) -> bool:
    kind, _, number = how.partition(" ")
    if kind == "code":
        return int(number) not in RESUME_CODES
    return kind in ("clean", "stalled") or how == "status 204"


def _stands_for(delivery: Delivery, covered: Sequence[Delivery]) -> bool:
    """Whether one delivery says exactly what the log's entries up to its id say."""
    if delivery.type == "token":
        joined = "".join(entry.fields.get("text", "") for entry in covered)
        return all(e.type == "token" for e in covered) and joined == delivery.fields.get("text")
    last = covered[-1]
    return len(covered) == 1 and (last.type, last.fields) == (delivery.type, delivery.fields)


def _check_bound(record: Record, bound_s: float) -> Iterator[str]:
    for reading in record.readings:
        if reading.end is not None and reading.end.at - record.accepted_at > bound_s:
            yield f"{reading.reader}: ended after {reading.end.at - record.accepted_at:.1f} s"
    if not record.readings and record.log is None and record.snapshot is None:
        yield "accepted, and nobody knows how it ended"


def _check_one_history(readings: Sequence[Reading]) -> Iterator[str]:
    """An id has one history: whoever sees it has the same text so far, also before a reset 0-0."""
    seen: dict[str, tuple[str, str]] = {}
    for reading in readings:
        for event_id, text in _texts_so_far(reading.deliveries):
            other, known = seen.setdefault(event_id, (reading.reader, text))
            if known != text:
                yield (
                    f"two texts at {event_id}: {other} has {_short(known)},"
                    f" {reading.reader} has {_short(text)}"
                )
                break


def _texts_so_far(deliveries: Sequence[Delivery]) -> Iterator[tuple[str, str]]:
    text = ""
    for delivery in deliveries:
        if delivery.type == "reset":
            text = ""
        elif delivery.type == "token":
            text += delivery.fields.get("text", "")
        if delivery.event_id != "0-0":
            yield delivery.event_id, text


def _check_texts(record: Record) -> Iterator[str]:
    """Invariant 6 over all that know the text. A lost generation has no text to agree on."""
    texts = {r.reader: r.text for r in record.readings if r.end is not None and not _is_lost(r.end)}
    ends = {_identity(r.end) for r in record.readings if r.end is not None}
    if len(ends) > 1:
        yield f"readers were told different ends: {sorted(ends)}"
    if record.log is not None:
        texts["the log"] = fold_text(record.log)
    if record.snapshot is not None:
        texts["the snapshot"] = record.snapshot.get("text") or ""
        yield from _check_snapshot(record.snapshot, record.log)
    wanted = record.expected_text
    if wanted is None and texts:
        wanted = next(iter(texts.values()))
    for name, text in texts.items():
        if text != wanted:
            yield f"text of {name}: {_difference(text, wanted or '')}"


def _check_snapshot(snapshot: dict[str, Any], log: Sequence[Delivery] | None) -> Iterator[str]:
    if snapshot.get("status") not in ("completed", "cancelled", "failed"):
        yield f"the snapshot says {snapshot.get('status')!r}"
    if log and snapshot.get("last_event_id") != log[-1].event_id:
        yield (
            f"the snapshot's last_event_id {snapshot.get('last_event_id')!r}"
            f" is not the log's top {log[-1].event_id}"
        )


def _since_void(deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    voids = [n for n, d in enumerate(deliveries) if d.type == "reset" and d.event_id == "0-0"]
    return deliveries[voids[-1] + 1 :] if voids else deliveries


def _is_lost(end: Delivery) -> bool:
    return end.event_id == "0-0"


def _identity(end: Delivery | None) -> str:
    assert end is not None
    return f"{end.event_id} {end.fields.get('status')}"


def _named(reading: Reading, problems: Sequence[str]) -> list[str]:
    return [f"{reading.reader}: {problem}" for problem in problems]


def _text(event_id: Id) -> str:
    return f"{event_id[0]}-{event_id[1]}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else "…" + text[-60:])


def _difference(text: str, wanted: str) -> str:
    at = next(
        (n for n, (a, b) in enumerate(zip(text, wanted, strict=False)) if a != b),
        min(len(text), len(wanted)),
    )
    return (
        f"{len(text)} characters, {len(wanted)} wanted; first difference at {at}:"
        f" {text[at : at + 30]!r}, wanted {wanted[at : at + 30]!r}"
    )
