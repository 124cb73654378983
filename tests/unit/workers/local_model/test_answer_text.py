"""The text of an answer from the bytes of its tokens, with stop sequences."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workers.local_model.answer_text import AnswerText


def read(raw: Sequence[bytes], *stops: str) -> list[str]:
    text = AnswerText(stops)
    return [text.feed(piece) for piece in raw] + [text.finish()]


def test_a_character_of_several_tokens_comes_when_it_is_whole() -> None:
    raw = "a🍊b".encode()

    assert read([raw[:2], raw[2:4], raw[4:]]) == ["a", "", "🍊b", ""]


def test_a_character_that_never_becomes_whole_is_shown_as_broken_at_the_end() -> None:
    assert read([b"a\xf0\x9f"]) == ["a", "\ufffd"]


@pytest.mark.parametrize("size", range(1, 8))
def test_the_text_ends_before_a_stop_sequence_however_it_is_cut(size: int) -> None:
    raw = b"one two END three"
    pieces = [raw[at : at + size] for at in range(0, len(raw), size)]

    assert "".join(read(pieces, "END", "three")) == "one two "


def test_the_beginning_of_a_stop_sequence_is_held_back_and_given_if_it_goes_on_otherwise() -> None:
    assert read([b"one EN", b"TER", b" E"], "END") == ["one ", "ENTER", " ", "E"]


def test_nothing_follows_after_a_stop_sequence() -> None:
    text = AnswerText(["."])

    assert (text.feed(b"a.b"), text.has_stopped, text.feed(b"c"), text.finish()) == (
        "a",
        True,
        "",
        "",
    )
