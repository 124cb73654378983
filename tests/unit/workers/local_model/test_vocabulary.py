"""The bytes of tokens, and the search for the tokens of a text."""

from __future__ import annotations

import pytest

from workers.local_model.vocabulary import (
    ALIGNED_BYTES_MAX,
    KIND_BPE,
    KIND_SPM,
    Vocabulary,
    split_to_align,
    token_bytes,
)


@pytest.mark.parametrize(
    ("name", "kind", "raw"),
    [
        ("Ġthree", KIND_BPE, b" three"),
        ("Ċ", KIND_BPE, b"\n"),
        ("ĠðŁ", KIND_BPE, b" \xf0\x9f"),  # half of 🍊, from SmolLM2's vocabulary
        ("<tool call>", KIND_BPE, b"<tool call>"),
        ("▁three", KIND_SPM, b" three"),
        ("<0xF0>", KIND_SPM, b"\xf0"),
    ],
)
def test_the_bytes_of_a_token_come_from_its_name(name: str, kind: int, raw: bytes) -> None:
    assert token_bytes(name, kind) == raw


def test_all_beginnings_of_a_text_are_found() -> None:
    tokens = Vocabulary([(1, b"ba"), (2, b"b"), (3, b"banana"), (4, b"na"), (5, b"ba"), (6, b"")])

    assert sorted(tokens.beginnings(b"banan")) == [1, 2, 5]


def test_a_short_answer_is_computed_again_as_a_whole() -> None:
    assert split_to_align("One 🍊.") == ("", "One 🍊.".encode())


def test_of_a_long_answer_the_end_is_computed_again_from_a_space_on() -> None:
    text = "One 🍊 two. " * 1_000

    before, rest = split_to_align(text)

    assert before + rest.decode() == text
    assert rest.startswith(b" ") and ALIGNED_BYTES_MAX <= len(rest) < ALIGNED_BYTES_MAX + 20


def test_a_long_answer_without_spaces_is_left_to_the_tokenizer() -> None:
    text = "你好" * 5_000

    assert split_to_align(text) == (text, b"")
