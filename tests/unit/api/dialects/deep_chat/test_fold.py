"""The Responses of deep-chat: as server-sent events, on a socket, and in one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.dialects.deep_chat.fold import CompleteAnswer, DeepChatFold, DeepChatFrameFold
from shared.log.events import End, Failure, File, Progress, Reset, Start, Token, encode
from shared.log.ids import EventId
from tests.support.hub_harness import END, make_meta

STOP = {"text": "stop-key"}
BROKE = End("failed", "error", error=Failure("upstream_error", "it broke", True))
PLOT = File("plot.png", "image/png", url="https://example.org/plot.png")


def sse(*events: Any) -> list[dict[str, Any]]:
    fold = DeepChatFold(make_meta())
    sent = b"".join(fold.add(EventId(1, seq), encode(e)) for seq, e in enumerate(events, 1))
    blocks = sent.decode().split("\n\n")[:-1]
    return [json.loads(block.partition("data: ")[2]) for block in blocks]


def frames(*events: Any, key: str = "stop-key") -> list[dict[str, Any]]:
    fold = DeepChatFrameFold(make_meta(), key)
    sent = [f for seq, e in enumerate(events, 1) for f in fold.add(EventId(1, seq), encode(e))]
    return [json.loads(frame) for frame in sent]


def test_the_text_after_a_reset_overwrites_the_earlier_text() -> None:
    events = (Token("One, "), Reset("takeover"), Token(""), Token("Uno, "), Token("due"), END)
    shown = [{"text": "One, "}, {"text": "Uno, ", "overwrite": True}, {"text": "due"}]
    assert sse(*events) == shown
    assert frames(*events) == [*shown, STOP]


def test_a_failure_after_a_reset_blanks_the_earlier_text() -> None:
    events = (Token("One, "), Reset("takeover"), BROKE)
    assert sse(*events)[1:] == [{"text": " ", "overwrite": True}, {"error": "it broke"}]


def test_a_reset_before_the_first_text_overwrites_nothing() -> None:
    assert sse(Start(1, "demo"), Reset("takeover"), Token("Uno"), END) == [{"text": "Uno"}]


@pytest.mark.parametrize("end", [END, End("cancelled", "cancelled")])
def test_an_answer_without_text_is_a_blank(end: End) -> None:
    assert sse(Start(1, "demo"), end) == [{"text": " "}]
    assert frames(end) == [{"text": " "}, STOP]


def test_an_error_keeps_the_text_and_comes_before_the_stop_key() -> None:
    assert sse(Token("One"), BROKE) == [{"text": "One"}, {"error": "it broke"}]
    assert frames(Token("One"), BROKE) == [{"text": "One"}, {"error": "it broke"}, STOP]
    assert sse(BROKE) == [{"error": "it broke"}]


def test_progress_has_its_own_role_and_the_next_text_names_its_role() -> None:
    events = (Progress("pdf_parsing", 3, 50, 6.0), Token("a"), Token("b"))
    status = {"role": "status", "text": "pdf parsing 3/50", "overwrite": True}
    assert sse(*events, END) == [status, {"role": "ai", "text": "a"}, {"text": "b"}]
    assert frames(*events, END) == [
        status, {"text": "a"}, {"text": "b"}, {"role": "status", **STOP}, STOP,
    ]  # fmt: skip


def test_progress_during_the_answer_does_not_split_the_bubble() -> None:
    progress = Progress("rows", 1, 2, 50.0)
    assert sse(Token("a"), progress, Token("b"), END) == [{"text": "a"}, {"text": "b"}]
    assert [f["text"] for f in frames(Token("a"), progress, Token("b"))] == ["a", "rows 1/2", "b"]


def test_files_are_messages_and_are_not_repeated_after_a_reset() -> None:
    paper = File("paper.pdf", "application/pdf", data="UERG")
    song = File("song.mp3", "audio/mpeg", data="TVAz")
    files = [
        {"src": "https://example.org/plot.png", "name": "plot.png", "type": "image"},
        {"src": "data:application/pdf;base64,UERG", "name": "paper.pdf", "type": "any"},
        {"src": "data:audio/mpeg;base64,TVAz", "name": "song.mp3", "type": "audio"},
    ]
    shown = sse(PLOT, paper, Reset("takeover"), PLOT, paper, PLOT, song, END)
    assert shown == [{"files": [files[n]]} for n in (0, 1, 0, 2)]


@pytest.mark.parametrize("key", ["stop-key", "ab", "👩\u200d🚀", '"x'])
def test_a_text_that_equals_the_stop_key_is_sent_in_two_pieces(key: str) -> None:
    stop = {"text": key}
    shown = frames(Token("x"), Token(key), Reset("r"), Token(key), Token(key * 2), END, key=key)
    assert shown.count(stop) == 1 and shown[-1] == stop
    after = next(n for n, frame in enumerate(shown) if frame.get("overwrite"))
    assert "".join(frame["text"] for frame in shown[after:-1]) == key * 3


def test_a_status_that_equals_the_stop_key_gets_a_blank_appended() -> None:
    shown = frames(Progress("rows", 1, 2, 50.0), END, key="rows 1/2")
    assert [f["text"] for f in shown if f.get("role") == "status"] == ["rows 1/2 ", "rows 1/2"]


def test_a_complete_answer_is_one_response() -> None:
    whole = CompleteAnswer(make_meta())
    events = (Token("One"), PLOT, Reset("takeover"), Token("Uno"), PLOT, END)
    for seq, event in enumerate(events, 1):
        whole.add(EventId(1, seq), encode(event))
    assert whole.failure is None
    assert whole.response["text"] == "Uno"
    assert [file["name"] for file in whole.response["files"]] == ["plot.png"]
