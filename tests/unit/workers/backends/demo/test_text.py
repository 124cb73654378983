"""The sentences of the demo, and how they are cut into pieces."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.backends.demo.text import (
    CLOSINGS,
    OPENINGS,
    QUOTE_CHARS_MAX,
    THOUGHTS,
    TOPICS,
    answer,
    quote_of,
    split,
    thoughts,
)

SENTENCES = [
    *(opening.format(quote="hi") for opening in OPENINGS),
    *(wording for topic in TOPICS for sentence in topic for wording in sentence),
    *CLOSINGS,
    *THOUGHTS,
]


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    pieces = split(text)
    assert "".join(pieces) == text
    assert all(pieces)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_sentences_are_well_formed(sentence: str) -> None:
    assert "".join(split(sentence)) == sentence
    assert re.search(r"[.!?][”)]?( \S+)?$", sentence)
    assert sentence.count("“") == sentence.count("”")
    assert "  " not in sentence


def test_no_piece_begins_inside_a_character() -> None:
    text = "e\u0301te\u0301 👩‍🚀 👩🏽‍🚀, 🇩🇰! 1️⃣ 水\u0302流 naïve — “Zoë”… " + " ".join(SENTENCES)
    for piece in split(text):
        first = piece.strip()[:1]
        assert not first or unicodedata.category(first) not in ("Mn", "Me", "Cf", "Sk")


def test_pieces_look_like_tokens() -> None:
    assert split(" Hello, world 42!") == (" Hello", ",", " world", " 42", "!")
    assert split("流水 x") == ("流", "水", " x")
    assert split(" conversations") == (" convers", "ations") or len(split(" conversations")) == 2


def test_paragraphs() -> None:
    for seed in range(20):
        paragraphs = "".join(answer("hi", str(seed), None)).split("\n\n")
        assert len(paragraphs) == 6
        assert all(paragraphs)
        assert len(set(paragraphs)) == 6


def test_a_long_answer_begins_with_a_shorter_one() -> None:
    long = list(answer("hi", "s", 3_000))
    assert list(answer("hi", "s", 700)) == long[:700]
    assert len(long) == 3_000


@pytest.mark.parametrize(
    ("prompt", "quote"),
    [
        ("", "…"),
        ("  \n ", "…"),
        ("one\n\ttwo", "one two"),
        ("w " * 100, "w " * 29 + "w…"),
        ("x" * 500, "…"),
        ("a\ud83db", "ab"),
    ],
)
def test_quotes(prompt: str, quote: str) -> None:
    assert quote_of(prompt) == quote


@given(st.text())
def test_quotes_are_short(prompt: str) -> None:
    assert len(quote_of(prompt)) <= QUOTE_CHARS_MAX + 1


def test_thoughts_have_the_requested_length() -> None:
    assert [len(list(thoughts("s", count))) for count in (0, 1, 7, 100)] == [0, 1, 7, 100]
