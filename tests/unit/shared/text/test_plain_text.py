"""Control characters become visible, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.text.plain_text import plain_block, plain_json, plain_line, plain_text

TEXTS = st.text(
    st.characters() | st.sampled_from("\x1b\x9b\x07\x7f\r\n\t\u202e\u200b\ufeff\ud800"), max_size=30
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\x08\x7f", "a\\x08\\x7f"),
        ("one\r\ntwo\n\tthree", "one\ntwo\n\tthree"),
        ("safe\rrm -rf", "saferm -rf"),
        ("\ud800", "\\ud800"),
        ("流 é 👩\u200d💻 שלום\u200f!", "流 é 👩\u200d💻 שלום\u200f!"),
    ],
)
def test_a_text_on_a_terminal(text: str, shown: str) -> None:
    assert plain_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\rd", "a\\x0ab\\x09c\\x0dd"),
        ("exe.\u202egnp", "exe.\\u202egnp"),
        ("a\u200bb\u2028c\ufeff", "a\\u200bb\\u2028c\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("流 é 👩\u200d💻", "流 é 👩\u200d💻"),
    ],
)
def test_a_field_of_one_line(text: str, shown: str) -> None:
    assert plain_line(text) == shown


@given(TEXTS)
def test_a_second_call_changes_nothing_and_the_result_can_be_printed(text: str) -> None:
    for plain in (plain_line, plain_text, plain_block):
        shown = plain(text)
        assert plain(shown) == shown
        shown.encode()
        assert not any(c < " " or "\x7f" <= c <= "\x9f" for c in shown if c not in "\n\t")


@given(TEXTS)
def test_a_line_of_json_keeps_its_meaning(text: str) -> None:
    line = json.dumps({"a": text, text: 1}, ensure_ascii=False)

    shown = plain_json(line)

    assert json.loads(shown) == json.loads(line)
    assert shown.isprintable() or not text.isprintable()
    assert not any("\x7f" <= c <= "\x9f" or c in "\u202e\u200b\ufeff" for c in shown)
