"""The numbers of a producer's events: what is sent, sent again, and given up. Without I/O."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace_client import producing
from tailrace_client.errors import TailraceError
from tailrace_client.producing import Append, Journal, end_of


def begun(**members: Any) -> Journal:
    answer = {"id": "gen_1", "attempt": 1, "producer_token": "1.a", "lease_s": 30.0}
    return Journal({**answer, "status": "running", "next_seq": 2, **members})


def tokens(journal: Journal, *texts: str, agent: str = "") -> None:
    for text in texts:
        journal.write("token", {"text": text, "agent": agent})


def accepted(journal: Journal, append: Append, status: str = "running") -> None:
    top = append.seq + len(append.events) - 1
    journal.accept(append, {"status": status, "last_event_id": f"1-{top}"})


def gap(next_seq: int) -> TailraceError:
    return TailraceError(
        "sequence_gap", "gap", retryable=False, status=409, members={"next_seq": next_seq}
    )


def texts(append: Append) -> list[str]:
    return [event.get("text", event["type"]) for event in append.events]


def test_texts_of_one_agent_are_joined_until_they_are_sent() -> None:
    journal = begun()
    tokens(journal, "a", "b")
    tokens(journal, "c", agent="x")
    append = journal.take()
    tokens(journal, "d", agent="x")

    assert texts(append) == ["ab", "c"]
    assert journal.take() == append, "an append without an answer stays as it is"
    accepted(journal, append)
    assert journal.take() == Append(4, [{"type": "token", "text": "d", "agent": "x"}])


def test_an_append_without_events_extends_only_the_lease() -> None:
    journal = begun()
    append = journal.take()
    journal.accept(append, {"status": "running", "last_event_id": "1-1"})

    assert append.body == {}
    assert journal.is_settled and not journal.is_over


def test_events_that_the_server_has_lost_are_sent_again_under_their_numbers() -> None:
    journal = begun()
    for text in ("a", "b", "c"):
        tokens(journal, text)
        accepted(journal, journal.take())
    tokens(journal, "d")
    journal.take()
    journal.refuse(gap(3))
    append = journal.take()

    assert (append.seq, texts(append)) == (3, ["b", "c", "d"])
    accepted(journal, append)
    assert journal.is_settled and journal.error is None


@pytest.mark.parametrize("next_seq", [0, 1, 4])
def test_a_gap_that_this_producer_cannot_fill_stops_it(next_seq: int) -> None:
    journal = begun()
    tokens(journal, "a")
    accepted(journal, journal.take())
    journal.refuse(gap(next_seq))

    with pytest.raises(TailraceError):
        tokens(journal, "b")


def test_only_the_newest_events_are_kept_for_a_server_that_loses_them(monkeypatch) -> None:
    monkeypatch.setattr(producing, "KEPT_BYTES", 60)
    journal = begun()
    for text in ("a", "b", "c"):
        tokens(journal, text)
        accepted(journal, journal.take())
    journal.refuse(gap(2))

    assert journal.error is not None


def test_large_appends_are_divided(monkeypatch) -> None:
    monkeypatch.setattr(producing, "BYTES_MAX", 100)
    journal = begun()
    for n in range(4):
        journal.write("data", {"name": "row", "value": "x" * 40, "agent": str(n)})
    append = journal.take()
    accepted(journal, append)

    assert len(append.events) == 1
    assert journal.take().seq == 3


def test_an_end_of_others_stops_the_producer_with_its_status() -> None:
    journal = begun()
    tokens(journal, "a")
    journal.take()
    members = {"status": "cancelled"}
    journal.refuse(
        TailraceError("generation_ended", "over", retryable=False, status=409, members=members)
    )

    assert (journal.status, journal.is_over) == ("cancelled", True)
    with pytest.raises(TailraceError, match="generation_ended"):
        tokens(journal, "b")


def test_an_end_of_the_server_in_the_answer_of_an_append_stops_the_producer() -> None:
    journal = begun()
    tokens(journal, "a")
    accepted(journal, journal.take(), status="failed")

    assert journal.error is not None and journal.error.code == "generation_ended"


def test_nothing_follows_the_end_and_the_end_is_no_error() -> None:
    journal = begun()
    journal.write("end", {})
    accepted(journal, journal.take(), status="completed")

    assert (journal.is_over, journal.error) == (True, None)
    with pytest.raises(TailraceError, match="usage"):
        tokens(journal, "b")


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()], ids=["nan", "set", "object"])
def test_a_value_that_is_no_json_is_refused_where_it_is_written(value: Any) -> None:
    with pytest.raises(TailraceError, match="usage"):
        begun().write("data", {"name": "row", "value": value, "agent": ""})


def test_an_empty_value_of_data_is_written() -> None:
    journal = begun()
    journal.write("data", {"name": "row", "value": "", "agent": ""})

    assert journal.take().events == [{"type": "data", "name": "row", "value": ""}]


def test_the_end_of_a_block_tells_readers_only_the_class_of_an_error() -> None:
    failed = end_of(ValueError("a secret"), is_cancelled=False)

    assert end_of(None, is_cancelled=False) == {}
    assert end_of(KeyboardInterrupt(), is_cancelled=True) == {"status": "cancelled"}
    assert failed["status"] == "failed"
    assert failed["error"]["message"] == "the producer failed: ValueError"
