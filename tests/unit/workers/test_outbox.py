"""Ids and bytes given once, sent until accepted, written again when lost: rule by rule.

`Redis` below is a model of the scripts for one holder: what it accepts, forgets and answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Unavailable
from shared.log.events import (
    Data,
    End,
    Progress,
    Reasoning,
    Start,
    Token,
    ToolCall,
    Usage,
    decode,
    encode,
)
from shared.log.ids import START, EventId
from shared.log.records import Append, Behind, Ended, Fenced, Lost, Moved, Ok
from workers.outbox import (
    BATCH_BYTES_MAX,
    BATCH_ENTRIES_MAX,
    RESTORE_ENTRIES_MAX,
    RESTORE_WITHIN_S,
    Outbox,
    Restore,
)

ID = "gen_0123456789"
FIELDS = {b"owner": b"alice"}
END = End("completed", "stop")
AWAY = Unavailable("no answer")


def outbox_of(*found, attempt=2):
    """An outbox just begun, after these texts of attempt 1."""
    log = [(EventId(1, n), encode(Token(text))) for n, text in enumerate(found, 1)]
    start = (EventId(attempt, len(log) + 1), encode(Start(attempt, "demo")))
    return Outbox(ID, "mine", found=log, start=start, fields=FIELDS, now_s=0.0)


def texts(raws):
    return [getattr(decode(raw), "text", type(decode(raw)).__name__) for raw in raws]


def sent(outbox, *events, now_s=0.0, outcome=None):
    """Push, take and answer; the call that was made."""
    for event in events:
        outbox.push(event)
    step = outbox.take(now_s)
    outbox.answer(outcome or Ok(), now_s)
    return step


# Sending


def test_what_is_pushed_is_taken_once():
    outbox = outbox_of()
    assert outbox.is_settled
    outbox.push(Token("a"))
    assert not outbox.is_settled

    assert outbox.take(0.0) == Append(ID, "mine", 2, 1, [encode(Token("a"))], before_attempt=2)
    assert outbox.take(0.0) is None, "one call at a time"
    outbox.answer(Ok(), 0.0)

    assert outbox.take(0.0) is None
    assert outbox.is_settled


def test_ids_go_on_from_what_was_found():
    outbox = outbox_of("a", "b")

    step = sent(outbox, Token("c"))

    assert (step.attempt, step.before_seq) == (2, 3)
    assert [event_id for event_id, _ in outbox.log] == [
        EventId(1, 1),
        EventId(1, 2),
        EventId(2, 3),
        EventId(2, 4),
    ]


def test_what_arrives_meanwhile_leaves_with_the_next_call():
    outbox = outbox_of()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(Token("b"))
    outbox.push(Token("c"))
    outbox.answer(Ok(), 0.0)

    second = outbox.take(0.0)

    assert texts(first.entries) == ["a"]
    assert texts(second.entries) == ["bc"], "joined: it had no bytes yet"
    assert second.before_seq == 2


def test_a_resend_is_the_same_byte_for_byte():
    outbox = outbox_of()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(Token("b"))
    outbox.answer(AWAY, 0.0)

    again = outbox.take(0.0)

    assert again.before_seq == first.before_seq
    assert again.entries[: len(first.entries)] == first.entries
    assert texts(again.entries) == ["a", "b"], "what has bytes is never joined anew"


def test_only_neighbours_of_one_kind_are_joined():
    step = sent(
        outbox_of(),
        Reasoning("a"),
        Reasoning("b"),
        Token("c"),
        Token("d"),
        ToolCall(0, "c", "f", "x"),
        ToolCall(0, arguments="y"),
        Token("e"),
    )

    assert texts(step.entries) == ["ab", "cd", "ToolCall", "ToolCall", "e"]


def test_joins_are_bounded():
    """An event is one write to every reader: it must not grow without end in an outage."""
    piece = "x" * 1_000
    outbox = outbox_of()
    for _ in range(1_000):
        outbox.push(Token(piece))

    step = outbox.take(0.0)

    assert max(len(raw) for raw in step.entries) <= 65_536
    assert len(step.entries) > 1


def test_a_batch_has_so_many_entries_at_most():
    outbox = outbox_of()
    for n in range(BATCH_ENTRIES_MAX + 3):
        outbox.push(Progress("pdf", n, 100, 1.0))

    assert len(outbox.take(0.0).entries) == BATCH_ENTRIES_MAX
    outbox.answer(Ok(), 0.0)
    assert len(outbox.take(0.0).entries) == 3


def test_a_batch_has_so_many_bytes_at_most():
    outbox = outbox_of()
    for n in range(10):
        outbox.push(Data("blob", "x" * 60_000 + str(n)))

    step = outbox.take(0.0)

    assert len(step.entries) == 4
    assert sum(map(len, step.entries)) <= BATCH_BYTES_MAX


def test_an_entry_that_is_too_large_for_a_batch_travels_alone():
    outbox = outbox_of()
    for event in (Progress("pdf", 1, 2, 50.0), Data("blob", "x" * 400_000), Token("a")):
        outbox.push(event)

    assert [len(sent(outbox).entries) for _ in range(3)] == [1, 1, 1]
    assert outbox.is_settled


def test_the_end_is_flagged_with_its_status():
    outbox = outbox_of()

    step = sent(outbox, Token("a"), END)

    assert step.status == "completed"
    assert outbox.stopped == "ended"
    assert outbox.is_settled
    assert outbox.take(0.0) is None


def test_the_end_is_flagged_only_in_the_batch_that_has_it():
    outbox = outbox_of()
    for n in range(BATCH_ENTRIES_MAX):
        outbox.push(Progress("pdf", n, 100, 1.0))
    outbox.push(END)

    assert sent(outbox).status is None
    assert outbox.stopped is None
    assert sent(outbox).status == "completed"


def test_an_end_that_comes_while_the_rest_is_under_way_goes_with_the_next():
    outbox = outbox_of()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(END)
    outbox.answer(Ok(), 0.0)

    assert first.status is None
    assert outbox.stopped is None
    assert not outbox.is_settled
    assert sent(outbox).status == "completed"


def test_nothing_is_pushed_after_the_end():
    outbox = outbox_of()
    outbox.push(END)

    with pytest.raises(AssertionError):
        outbox.push(Token("a"))


@pytest.mark.parametrize(("outcome", "word"), [(Ended(), "ended"), (Fenced(), "fenced")])
def test_told_that_it_is_over_it_stops(outcome, word):
    outbox = outbox_of()
    sent(outbox, Token("a"), outcome=outcome)

    assert outbox.stopped == word
    assert outbox.is_settled
    assert outbox.take(0.0) is None


def test_told_so_by_a_renewal_it_stops_as_well():
    for outcome, word in ((Ended(), "ended"), (Fenced(), "fenced")):
        outbox = outbox_of()
        outbox.push(Token("a"))
        outbox.renewed(outcome, 0.0, 0.0)
        assert outbox.stopped == word
        assert outbox.take(0.0) is None


def test_what_was_forgone_first_counts():
    outbox = outbox_of()
    outbox.forgo("ended")
    outbox.forgo("fenced")

    assert outbox.stopped == "ended"


# What was not answered, or lost


def test_behind_is_written_again_from_there():
    outbox = outbox_of("a")
    sent(outbox, Token("b"))
    sent(outbox, Token("c"))
    log = list(outbox.log)

    sent(outbox, Token("d"), outcome=Behind(EventId(2, 2)))
    heal = outbox.take(0.0)

    assert heal == Restore(EventId(2, 2), {}, log[2:4])
    outbox.answer(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["d"]


def test_behind_needs_no_recent_call():
    """The token still stands there: nobody else can have written."""
    outbox = outbox_of()
    sent(outbox, Token("a"))
    outbox.push(Token("b"))
    outbox.take(100.0)

    outbox.answer(Behind(START), 100.0)

    assert isinstance(outbox.take(100.0), Restore)


def test_lost_is_restored_with_the_fields():
    outbox = outbox_of("a")
    sent(outbox, Token("b"))

    sent(outbox, Token("c"), outcome=Lost(START))
    heal = outbox.take(0.0)

    assert heal == Restore(START, FIELDS, outbox.log[:3])
    assert not outbox.is_settled
    outbox.answer(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["c"]


def test_what_was_found_at_the_takeover_is_restored_too():
    outbox = outbox_of("a", "b")

    sent(outbox, Token("c"), outcome=Lost(EventId(1, 1)))

    assert outbox.take(0.0).entries == outbox.log[1:3]


@pytest.mark.parametrize(
    "top", [EventId(7, 1), EventId(1, 3), EventId(2, 2), EventId(2, 99), EventId(3, 1)]
)
def test_on_a_top_that_is_not_its_own_it_stops(top):
    for answer in (Lost(top), Behind(top), Moved(top)):
        outbox = outbox_of("a", "b")
        sent(outbox, Token("c"), outcome=answer)
        assert outbox.stopped == "lost"
        assert outbox.take(0.0) is None


def test_after_ten_seconds_without_an_accepted_call_it_stops():
    """By then the generation may be sealed, and another may have begun."""
    outbox = outbox_of()
    sent(outbox, Token("a"), now_s=5.0)
    outbox.push(Token("b"))

    outbox.take(5.0 + RESTORE_WITHIN_S)
    outbox.answer(Lost(START), 5.0 + RESTORE_WITHIN_S)

    assert outbox.stopped == "lost"


def test_just_before_it_restores():
    outbox = outbox_of()
    sent(outbox, Token("a"), now_s=5.0)
    outbox.push(Token("b"))

    outbox.take(4.9 + RESTORE_WITHIN_S)
    outbox.answer(Lost(START), 4.9 + RESTORE_WITHIN_S)

    assert isinstance(outbox.take(14.9), Restore)


def test_where_an_end_is_remembered_more_shortly_it_stops_sooner():
    """What is absent then may have ended and been forgotten: it is not lost."""
    start = (EventId(1, 1), encode(Start(1, "demo")))
    outbox = Outbox(
        ID, "mine", found=[], start=start, fields=FIELDS, now_s=0.0, restore_within_s=2.0
    )
    outbox.push(Token("a"))

    outbox.take(2.0)
    outbox.answer(Lost(START), 2.0)

    assert outbox.stopped == "lost"


def test_the_time_counts_from_when_the_call_was_made():
    """An answer may have been under way for long: then the call was accepted long ago."""
    outbox = outbox_of()
    outbox.push(Token("a"))
    outbox.take(0.0)
    outbox.answer(Ok(), 9.0)
    outbox.push(Token("b"))

    outbox.take(9.5)
    outbox.answer(Lost(START), RESTORE_WITHIN_S)

    assert outbox.stopped == "lost"


def test_a_renewal_counts_as_an_accepted_call():
    outbox = outbox_of()
    outbox.renewed(Ok(), 20.0, 20.5)
    outbox.renewed(Ok(), 3.0, 20.6)
    outbox.push(Token("a"))

    outbox.take(29.0)
    outbox.answer(Lost(START), 29.0)

    assert isinstance(outbox.take(29.0), Restore)


def test_unavailable_counts_as_none():
    outbox = outbox_of()
    for now_s in range(0, 12, 2):
        sent(outbox, Token("a"), now_s=now_s, outcome=AWAY)

    sent(outbox, now_s=12.0, outcome=Lost(START))

    assert outbox.stopped == "lost"


def test_a_renewal_that_finds_a_loss_mends_it_without_anything_new():
    outbox = outbox_of()
    sent(outbox, Token("a"))

    outbox.renewed(Lost(START), 1.0, 1.0)

    assert not outbox.is_settled
    assert outbox.take(1.0) == Restore(START, FIELDS, outbox.log)
    outbox.answer(Ok(), 1.0)
    assert outbox.is_settled


def test_a_renewals_loss_does_not_disturb_a_call_under_way():
    outbox = outbox_of()
    outbox.push(Token("a"))
    outbox.take(1.0)

    outbox.renewed(Lost(START), 1.0, 1.0)
    outbox.answer(Lost(START), 1.0)

    assert outbox.take(1.0) == Restore(START, FIELDS, outbox.log[:1])


def test_while_redis_is_away_nothing_changes():
    outbox = outbox_of()
    outbox.push(Token("a"))
    outbox.take(1.0)
    outbox.answer(AWAY, 1.0)

    outbox.renewed(AWAY, 1.0, 1.0)

    assert isinstance(outbox.take(1.0), Append)


def test_a_heal_that_was_not_answered_is_made_again_the_same():
    outbox = outbox_of()
    sent(outbox, Token("a"))
    sent(outbox, Token("b"), outcome=Lost(START))
    first = outbox.take(0.0)
    outbox.answer(AWAY, 0.0)

    assert outbox.take(0.0) == first


def test_a_heal_that_had_happened_all_the_same_is_skipped():
    """Its answer was lost; asked again, the top has moved to what it wrote."""
    outbox = outbox_of()
    sent(outbox, Token("a"))
    sent(outbox, Token("b"), outcome=Lost(START))
    sent(outbox, outcome=AWAY)

    sent(outbox, outcome=Moved(EventId(2, 2)))
    after = outbox.take(0.0)

    assert isinstance(after, Restore) and not after.entries, "marks the loss, writes nothing"
    outbox.answer(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["b"]


def test_a_long_log_is_restored_in_chunks():
    outbox = outbox_of()
    for n in range(20):
        sent(outbox, Data("blob", "x" * 100_000 + str(n)))
    sent(outbox, Token("last"), outcome=Lost(START))
    chunks = []

    while isinstance(step := outbox.take(0.0), Restore):
        chunks.append(step)
        outbox.answer(Ok(), 0.0)

    assert [step.top for step in chunks] == [START] + [c.entries[-1][0] for c in chunks[:-1]]
    assert [entry for step in chunks for entry in step.entries] == outbox.log[:21]
    assert all(sum(len(raw) for _, raw in c.entries) <= BATCH_BYTES_MAX for c in chunks)
    assert [bool(step.fields) for step in chunks] == [True] + [False] * (len(chunks) - 1)
    assert texts(step.entries) == ["last"]


def test_a_chunk_has_so_many_entries_at_most():
    outbox = outbox_of(*("x" for _ in range(RESTORE_ENTRIES_MAX + 5)))

    sent(outbox, Token("a"), outcome=Lost(START))

    assert len(outbox.take(0.0).entries) == RESTORE_ENTRIES_MAX


def test_a_second_loss_in_the_middle_of_a_heal_starts_it_again():
    outbox = outbox_of()
    for n in range(6):
        sent(outbox, Data("blob", "x" * 100_000 + str(n)))
    sent(outbox, Token("a"), outcome=Lost(START))
    sent(outbox)

    sent(outbox, outcome=Moved(START))
    heal = outbox.take(0.0)

    assert (heal.top, heal.fields) == (START, FIELDS)
    assert heal.entries[0] == outbox.log[0]


def test_the_end_itself_is_not_part_of_a_heal():
    """A heal flags no end: it goes with an append."""
    outbox = outbox_of()
    sent(outbox, Token("a"))
    sent(outbox, END, outcome=AWAY)
    sent(outbox, outcome=Lost(START))

    heal = sent(outbox)
    step = outbox.take(0.0)

    assert texts(raw for _, raw in heal.entries) == ["Start", "a"]
    assert (texts(step.entries), step.status) == (["End"], "completed")


# What is counted


def test_bytes_unsent_fall_when_redis_takes_them():
    outbox = outbox_of()
    outbox.push(Token("abc"))
    outbox.push(Reasoning("de"))
    assert outbox.bytes_unsent >= 5
    outbox.take(0.0)
    outbox.push(Token("fg"))
    outbox.answer(Ok(), 0.0)

    assert 2 <= outbox.bytes_unsent < 10
    sent(outbox)

    assert outbox.bytes_unsent == 0


@pytest.mark.parametrize(
    "event",
    [
        ToolCall(0, arguments="x" * 1_000),
        Data("blob", "x" * 1_000),
        Token("x" * 1_000),
        Token("\u00fc" * 500),
        Reasoning("x" * 1_000),
    ],
)
def test_everything_unsent_is_counted(event):
    """A backend that says anything must be held up while Redis is slower than it."""
    outbox = outbox_of()
    for _ in range(100):
        outbox.push(event)

    assert outbox.bytes_unsent >= 100_000

    while not outbox.is_settled:
        sent(outbox)
    assert outbox.bytes_unsent == 0


def test_bytes_kept_are_those_of_the_log():
    outbox = outbox_of("a", "b")
    sent(outbox, Token("c"))

    assert outbox.log_bytes == sum(len(raw) for _, raw in outbox.log)


# Whatever happens


@dataclass
class Redis:
    """One generation as its holder can find it."""

    log: list = field(default_factory=list)
    has_meta: bool = True
    has_token: bool = True
    status: str = ""

    def append(self, step):
        top = self.log[-1][0] if self.log else START
        if not (self.has_meta and self.has_token):
            return Lost(top)
        if self.status:
            return Ended()
        if top.seq < step.before_seq:
            return Behind(top)
        for seq, raw in enumerate(step.entries, step.before_seq + 1):
            if seq > top.seq:
                self.log.append((EventId(step.attempt, seq), raw))
        self.status = step.status or ""
        return Ok()

    def restore(self, step):
        top = self.log[-1][0] if self.log else START
        if self.has_meta and self.status:
            return Ended()
        if top != step.top:
            return Moved(top)
        assert self.has_meta or step.fields, "meta is never made without its fields"
        self.has_meta = self.has_token = True
        self.log += step.entries
        return Ok()

    def lose(self, keep, everything):
        del self.log[keep:]
        self.status = ""
        if everything:
            self.has_meta = self.has_token = False
            self.log.clear()
        elif not self.log or self.log[-1][0].attempt == 1:
            self.has_token = False


PUSHES = st.one_of(
    st.builds(Token, st.text(max_size=5)),
    st.builds(Reasoning, st.text(max_size=5)),
    st.just(Progress("pdf", 1, 2, 50.0)),
    st.just(Usage(1, 2, 3)),
    st.builds(Token, st.just("x" * 30_000)),
    st.builds(Data, st.just("blob"), st.just("x" * 150_000)),
)
CALLS = st.sampled_from(("answered", "answered", "never happened", "answer lost", "nothing"))
LOSSES = st.one_of(st.none(), st.none(), st.none(), st.tuples(st.integers(0, 6), st.booleans()))


@given(
    found=st.integers(0, 4),
    steps=st.lists(st.tuples(st.lists(PUSHES, max_size=4), CALLS, LOSSES), max_size=25),
)
def test_whatever_happens_every_event_stands_once_and_in_order(found, steps):
    """Until the end is accepted, whose loss nobody could mend."""
    outbox = outbox_of(*("f" for _ in range(found)))
    redis = Redis(list(outbox.log))
    pushed, given_bytes = [], dict(outbox.log)

    def call(how):
        step = outbox.take(0.0)
        if step is None:
            return
        assert len(step.entries) <= RESTORE_ENTRIES_MAX
        if isinstance(step, Append):
            assert len(step.entries) <= BATCH_ENTRIES_MAX
            size = sum(map(len, step.entries))
        else:
            size = sum(len(raw) for _, raw in step.entries)
        assert size <= BATCH_BYTES_MAX
        outcome = AWAY
        if how != "never happened":
            outcome = redis.append(step) if isinstance(step, Append) else redis.restore(step)
        outbox.answer(AWAY if how == "answer lost" else outcome, 0.0)
        for event_id, raw in [*outbox.log, *redis.log]:
            assert given_bytes.setdefault(event_id, raw) == raw, "bytes are given once"

    for events, how, loss in steps:
        for event in events:
            outbox.push(event)
            pushed.append(event)
        if how != "nothing":
            call(how)
        if loss is not None:
            redis.lose(*loss)
    outbox.push(END)
    for _ in range(200):
        if outbox.stopped is None:
            call("answered")

    assert outbox.stopped == "ended"
    assert redis.log == outbox.log
    assert [event_id.seq for event_id, _ in redis.log] == list(range(1, len(redis.log) + 1))
    assert flat(decode(raw) for _, raw in redis.log[found + 1 :]) == flat([*pushed, END])
    assert redis.status == "completed"


def flat(events):
    """What was said, without the borders of pieces."""
    said = []
    for event in events:
        if isinstance(event, Token | Reasoning):
            if said and said[-1][0] is type(event):
                said[-1] = (type(event), said[-1][1] + event.text)
            else:
                said.append((type(event), event.text))
        else:
            said.append((type(event), event))
    return said
