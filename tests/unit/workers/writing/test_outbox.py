"""The outbox: ids and bytes, sending, restoring after a loss, and counting.

`Redis` below models the scripts for one holder: what they accept, lose and answer.
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
from workers.writing.outbox import (
    BATCH_BYTES_MAX,
    BATCH_ENTRIES_MAX,
    RESTORE_ENTRIES_MAX,
    RESTORE_WITHIN_S,
    Outbox,
    RestoreBatch,
)

ID = "gen_0123456789"
FIELDS = {b"owner": b"alice"}
END = End("completed", "stop")
AWAY = Unavailable("no answer")


def make_outbox(*found, attempt=2):
    """Return a new outbox; `found` are the texts of attempt 1."""
    log = [(EventId(1, n), encode(Token(text))) for n, text in enumerate(found, 1)]
    start = (EventId(attempt, len(log) + 1), encode(Start(attempt, "demo")))
    return Outbox(ID, "mine", found=log, start=start, fields=FIELDS, now_s=0.0)


def texts(raws):
    return [getattr(decode(raw), "text", type(decode(raw)).__name__) for raw in raws]


def send(outbox, *events, now_s=0.0, outcome=None):
    """Push the events, take a call and answer it; return the call."""
    for event in events:
        outbox.push(event)
    step = outbox.take(now_s)
    outbox.apply_outcome(outcome or Ok(), now_s)
    return step


# Sending


def test_a_pushed_event_is_taken_once():
    outbox = make_outbox()
    assert outbox.is_settled
    outbox.push(Token("a"))
    assert not outbox.is_settled

    assert outbox.take(0.0) == Append(ID, "mine", 2, 1, [encode(Token("a"))], before_attempt=2)
    assert outbox.take(0.0) is None, "one call at a time"
    outbox.apply_outcome(Ok(), 0.0)

    assert outbox.take(0.0) is None
    assert outbox.is_settled


def test_ids_continue_after_the_entries_of_earlier_attempts():
    outbox = make_outbox("a", "b")

    step = send(outbox, Token("c"))

    assert (step.attempt, step.before_seq) == (2, 3)
    assert [event_id for event_id, _ in outbox.log] == [
        EventId(1, 1),
        EventId(1, 2),
        EventId(2, 3),
        EventId(2, 4),
    ]


def test_text_pushed_during_a_call_is_joined_in_the_next_call():
    outbox = make_outbox()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(Token("b"))
    outbox.push(Token("c"))
    outbox.apply_outcome(Ok(), 0.0)

    second = outbox.take(0.0)

    assert texts(first.entries) == ["a"]
    assert texts(second.entries) == ["bc"], "joined, because it was not encoded yet"
    assert second.before_seq == 2


def test_a_resend_has_the_same_bytes():
    outbox = make_outbox()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(Token("b"))
    outbox.apply_outcome(AWAY, 0.0)

    again = outbox.take(0.0)

    assert again.before_seq == first.before_seq
    assert again.entries[: len(first.entries)] == first.entries
    assert texts(again.entries) == ["a", "b"], "an encoded event is never joined"


def test_only_consecutive_text_of_one_type_is_joined():
    step = send(
        make_outbox(),
        Reasoning("a"),
        Reasoning("b"),
        Token("c"),
        Token("d"),
        ToolCall(0, "c", "f", "x"),
        ToolCall(0, arguments="y"),
        Token("e"),
    )

    assert texts(step.entries) == ["ab", "cd", "ToolCall", "ToolCall", "e"]


def test_only_the_text_of_one_agent_is_joined():
    pieces = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "")]
    step = send(make_outbox(), *(Token(text, agent=agent) for text, agent in pieces))

    assert texts(step.entries) == ["ab", "c", "d"]
    assert [decode(raw).agent for raw in step.entries] == ["x", "y", ""]


def test_joined_events_are_bounded():
    """An event is one write to every reader, so it must not grow without bound in an outage."""
    piece = "x" * 1_000
    outbox = make_outbox()
    for _ in range(1_000):
        outbox.push(Token(piece))

    step = outbox.take(0.0)

    assert max(len(raw) for raw in step.entries) <= 65_536
    assert len(step.entries) > 1


def test_a_batch_has_at_most_batch_entries_max():
    outbox = make_outbox()
    for n in range(BATCH_ENTRIES_MAX + 3):
        outbox.push(Progress("pdf", n, 100, 1.0))

    assert len(outbox.take(0.0).entries) == BATCH_ENTRIES_MAX
    outbox.apply_outcome(Ok(), 0.0)
    assert len(outbox.take(0.0).entries) == 3


def test_a_batch_has_at_most_batch_bytes_max():
    outbox = make_outbox()
    for n in range(10):
        outbox.push(Data("blob", "x" * 60_000 + str(n)))

    step = outbox.take(0.0)

    assert len(step.entries) == 4
    assert sum(map(len, step.entries)) <= BATCH_BYTES_MAX


def test_an_entry_larger_than_a_batch_is_sent_alone():
    outbox = make_outbox()
    for event in (Progress("pdf", 1, 2, 50.0), Data("blob", "x" * 400_000), Token("a")):
        outbox.push(event)

    assert [len(send(outbox).entries) for _ in range(3)] == [1, 1, 1]
    assert outbox.is_settled


def test_the_append_with_the_end_carries_the_status():
    outbox = make_outbox()

    step = send(outbox, Token("a"), END)

    assert step.status == "completed"
    assert outbox.stopped == "ended"
    assert outbox.is_settled
    assert outbox.take(0.0) is None


def test_only_the_batch_with_the_end_carries_the_status():
    outbox = make_outbox()
    for n in range(BATCH_ENTRIES_MAX):
        outbox.push(Progress("pdf", n, 100, 1.0))
    outbox.push(END)

    assert send(outbox).status is None
    assert outbox.stopped is None
    assert send(outbox).status == "completed"


def test_an_end_pushed_during_a_call_is_sent_with_the_next_call():
    outbox = make_outbox()
    outbox.push(Token("a"))
    first = outbox.take(0.0)
    outbox.push(END)
    outbox.apply_outcome(Ok(), 0.0)

    assert first.status is None
    assert outbox.stopped is None
    assert not outbox.is_settled
    assert send(outbox).status == "completed"


def test_push_after_the_end_is_an_assertion_error():
    outbox = make_outbox()
    outbox.push(END)

    with pytest.raises(AssertionError):
        outbox.push(Token("a"))


@pytest.mark.parametrize(("outcome", "word"), [(Ended(), "ended"), (Fenced(), "fenced")])
def test_ended_or_fenced_stops_the_outbox(outcome, word):
    outbox = make_outbox()
    send(outbox, Token("a"), outcome=outcome)

    assert outbox.stopped == word
    assert outbox.is_settled
    assert outbox.take(0.0) is None


def test_ended_or_fenced_in_a_renewal_stops_the_outbox():
    for outcome, word in ((Ended(), "ended"), (Fenced(), "fenced")):
        outbox = make_outbox()
        outbox.push(Token("a"))
        outbox.apply_renewal(outcome, 0.0, 0.0)
        assert outbox.stopped == word
        assert outbox.take(0.0) is None


def test_the_first_stop_cause_stays():
    outbox = make_outbox()
    outbox.abandon("ended")
    outbox.abandon("fenced")

    assert outbox.stopped == "ended"


# Unanswered calls and losses


def test_behind_restores_from_the_top():
    outbox = make_outbox("a")
    send(outbox, Token("b"))
    send(outbox, Token("c"))
    log = list(outbox.log)

    send(outbox, Token("d"), outcome=Behind(EventId(2, 2)))
    restore_step = outbox.take(0.0)

    assert restore_step == RestoreBatch(EventId(2, 2), {}, log[2:4])
    outbox.apply_outcome(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["d"]


def test_behind_is_restored_at_any_age():
    """Redis still has the holder's token, so no other worker can have written."""
    outbox = make_outbox()
    send(outbox, Token("a"))
    outbox.push(Token("b"))
    outbox.take(100.0)

    outbox.apply_outcome(Behind(START), 100.0)

    assert isinstance(outbox.take(100.0), RestoreBatch)


def test_lost_is_restored_with_the_fields_of_meta():
    outbox = make_outbox("a")
    send(outbox, Token("b"))

    send(outbox, Token("c"), outcome=Lost(START))
    restore_step = outbox.take(0.0)

    assert restore_step == RestoreBatch(START, FIELDS, outbox.log[:3])
    assert not outbox.is_settled
    outbox.apply_outcome(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["c"]


def test_entries_of_earlier_attempts_are_restored_too():
    outbox = make_outbox("a", "b")

    send(outbox, Token("c"), outcome=Lost(EventId(1, 1)))

    assert outbox.take(0.0).entries == outbox.log[1:3]


@pytest.mark.parametrize(
    "top", [EventId(7, 1), EventId(1, 3), EventId(2, 2), EventId(2, 99), EventId(3, 1)]
)
def test_a_top_that_is_not_in_the_own_log_stops_the_outbox(top):
    for answer in (Lost(top), Behind(top), Moved(top)):
        outbox = make_outbox("a", "b")
        send(outbox, Token("c"), outcome=answer)
        assert outbox.stopped == "lost"
        assert outbox.take(0.0) is None


def test_a_loss_ten_seconds_after_the_last_accepted_call_stops():
    """The generation may be sealed by then, and another worker may have begun."""
    outbox = make_outbox()
    send(outbox, Token("a"), now_s=5.0)
    outbox.push(Token("b"))

    outbox.take(5.0 + RESTORE_WITHIN_S)
    outbox.apply_outcome(Lost(START), 5.0 + RESTORE_WITHIN_S)

    assert outbox.stopped == "lost"


def test_a_loss_just_within_ten_seconds_is_restored():
    outbox = make_outbox()
    send(outbox, Token("a"), now_s=5.0)
    outbox.push(Token("b"))

    outbox.take(4.9 + RESTORE_WITHIN_S)
    outbox.apply_outcome(Lost(START), 4.9 + RESTORE_WITHIN_S)

    assert isinstance(outbox.take(14.9), RestoreBatch)


def test_a_shorter_restore_within_s_stops_sooner():
    """A generation that is absent then may have ended and expired."""
    start = (EventId(1, 1), encode(Start(1, "demo")))
    outbox = Outbox(
        ID, "mine", found=[], start=start, fields=FIELDS, now_s=0.0, restore_within_s=2.0
    )
    outbox.push(Token("a"))

    outbox.take(2.0)
    outbox.apply_outcome(Lost(START), 2.0)

    assert outbox.stopped == "lost"


def test_the_restore_time_starts_when_the_call_was_sent():
    """If the answer took long, Redis accepted the call long ago."""
    outbox = make_outbox()
    outbox.push(Token("a"))
    outbox.take(0.0)
    outbox.apply_outcome(Ok(), 9.0)
    outbox.push(Token("b"))

    outbox.take(9.5)
    outbox.apply_outcome(Lost(START), RESTORE_WITHIN_S)

    assert outbox.stopped == "lost"


def test_an_accepted_renewal_extends_the_restore_time():
    outbox = make_outbox()
    outbox.apply_renewal(Ok(), 20.0, 20.5)
    outbox.apply_renewal(Ok(), 3.0, 20.6)
    outbox.push(Token("a"))

    outbox.take(29.0)
    outbox.apply_outcome(Lost(START), 29.0)

    assert isinstance(outbox.take(29.0), RestoreBatch)


def test_an_unanswered_call_does_not_extend_the_restore_time():
    outbox = make_outbox()
    for now_s in range(0, 12, 2):
        send(outbox, Token("a"), now_s=now_s, outcome=AWAY)

    send(outbox, now_s=12.0, outcome=Lost(START))

    assert outbox.stopped == "lost"


def test_a_loss_found_by_a_renewal_is_restored_without_new_events():
    outbox = make_outbox()
    send(outbox, Token("a"))

    outbox.apply_renewal(Lost(START), 1.0, 1.0)

    assert not outbox.is_settled
    assert outbox.take(1.0) == RestoreBatch(START, FIELDS, outbox.log)
    outbox.apply_outcome(Ok(), 1.0)
    assert outbox.is_settled


def test_a_loss_found_by_a_renewal_waits_for_the_call_in_flight():
    outbox = make_outbox()
    outbox.push(Token("a"))
    outbox.take(1.0)

    outbox.apply_renewal(Lost(START), 1.0, 1.0)
    outbox.apply_outcome(Lost(START), 1.0)

    assert outbox.take(1.0) == RestoreBatch(START, FIELDS, outbox.log[:1])


def test_unanswered_calls_change_nothing():
    outbox = make_outbox()
    outbox.push(Token("a"))
    outbox.take(1.0)
    outbox.apply_outcome(AWAY, 1.0)

    outbox.apply_renewal(AWAY, 1.0, 1.0)

    assert isinstance(outbox.take(1.0), Append)


def test_an_unanswered_restore_is_repeated_unchanged():
    outbox = make_outbox()
    send(outbox, Token("a"))
    send(outbox, Token("b"), outcome=Lost(START))
    first = outbox.take(0.0)
    outbox.apply_outcome(AWAY, 0.0)

    assert outbox.take(0.0) == first


def test_a_restore_that_was_executed_without_an_answer_writes_nothing_twice():
    """The answer was lost. The repeated call finds that the top has moved to its own entries."""
    outbox = make_outbox()
    send(outbox, Token("a"))
    send(outbox, Token("b"), outcome=Lost(START))
    send(outbox, outcome=AWAY)

    send(outbox, outcome=Moved(EventId(2, 2)))
    after = outbox.take(0.0)

    assert isinstance(after, RestoreBatch) and not after.entries, "marks the loss, writes nothing"
    outbox.apply_outcome(Ok(), 0.0)
    assert texts(outbox.take(0.0).entries) == ["b"]


def test_a_long_log_is_restored_in_chunks():
    outbox = make_outbox()
    for n in range(20):
        send(outbox, Data("blob", "x" * 100_000 + str(n)))
    send(outbox, Token("last"), outcome=Lost(START))
    chunks = []

    while isinstance(step := outbox.take(0.0), RestoreBatch):
        chunks.append(step)
        outbox.apply_outcome(Ok(), 0.0)

    assert [step.top for step in chunks] == [START] + [c.entries[-1][0] for c in chunks[:-1]]
    assert [entry for step in chunks for entry in step.entries] == outbox.log[:21]
    assert all(sum(len(raw) for _, raw in c.entries) <= BATCH_BYTES_MAX for c in chunks)
    assert [bool(step.fields) for step in chunks] == [True] + [False] * (len(chunks) - 1)
    assert texts(step.entries) == ["last"]


def test_a_restore_has_at_most_restore_entries_max():
    outbox = make_outbox(*("x" for _ in range(RESTORE_ENTRIES_MAX + 5)))

    send(outbox, Token("a"), outcome=Lost(START))

    assert len(outbox.take(0.0).entries) == RESTORE_ENTRIES_MAX


def test_a_second_loss_during_a_restore_starts_it_again():
    outbox = make_outbox()
    for n in range(6):
        send(outbox, Data("blob", "x" * 100_000 + str(n)))
    send(outbox, Token("a"), outcome=Lost(START))
    send(outbox)

    send(outbox, outcome=Moved(START))
    restore_step = outbox.take(0.0)

    assert (restore_step.top, restore_step.fields) == (START, FIELDS)
    assert restore_step.entries[0] == outbox.log[0]


def test_a_restore_never_carries_the_end():
    """A restore has no status: the end is sent with an append."""
    outbox = make_outbox()
    send(outbox, Token("a"))
    send(outbox, END, outcome=AWAY)
    send(outbox, outcome=Lost(START))

    restore_step = send(outbox)
    step = outbox.take(0.0)

    assert texts(raw for _, raw in restore_step.entries) == ["Start", "a"]
    assert (texts(step.entries), step.status) == (["End"], "completed")


# Byte counts


def test_bytes_unsent_falls_when_redis_accepts_entries():
    outbox = make_outbox()
    outbox.push(Token("abc"))
    outbox.push(Reasoning("de"))
    assert outbox.bytes_unsent >= 5
    outbox.take(0.0)
    outbox.push(Token("fg"))
    outbox.apply_outcome(Ok(), 0.0)

    assert 2 <= outbox.bytes_unsent < 10
    send(outbox)

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
def test_bytes_unsent_counts_every_event_type(event):
    """A backend with any output must be slowed down while Redis is slower."""
    outbox = make_outbox()
    for _ in range(100):
        outbox.push(event)

    assert outbox.bytes_unsent >= 100_000

    while not outbox.is_settled:
        send(outbox)
    assert outbox.bytes_unsent == 0


def test_log_bytes_is_the_size_of_the_log():
    outbox = make_outbox("a", "b")
    send(outbox, Token("c"))

    assert outbox.log_bytes == sum(len(raw) for _, raw in outbox.log)


# Random faults


@dataclass
class Redis:
    """A model of one generation in Redis."""

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
        assert self.has_meta or step.fields, "meta is never created without its fields"
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
def test_after_any_faults_every_event_is_in_redis_once_and_in_order(found, steps):
    """Losses stop before the end is accepted, because nothing restores an end."""
    outbox = make_outbox(*("f" for _ in range(found)))
    redis = Redis(list(outbox.log))
    pushed, bytes_by_id = [], dict(outbox.log)

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
        outbox.apply_outcome(AWAY if how == "answer lost" else outcome, 0.0)
        for event_id, raw in [*outbox.log, *redis.log]:
            assert bytes_by_id.setdefault(event_id, raw) == raw, "an id never gets other bytes"

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
    """Return the events with consecutive text joined."""
    joined = []
    for event in events:
        if isinstance(event, Token | Reasoning):
            if joined and joined[-1][0] is type(event):
                joined[-1] = (type(event), joined[-1][1] + event.text)
            else:
                joined.append((type(event), event.text))
        else:
            joined.append((type(event), event))
    return joined
