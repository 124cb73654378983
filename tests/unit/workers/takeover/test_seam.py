"""The guard at the seam: what readers get for each way in which servers answer a continuation."""

from __future__ import annotations

import pytest

from shared.log.events import Extra, Reasoning, Token, ToolCall, Usage
from workers.backends.contract import Finish
from workers.takeover.seam import (
    ANEW_CHARS,
    ANEW_CHARS_VERIFIED,
    HELD_CHARS_MAX,
    REPEATED_CHARS_MIN,
    Seam,
)

ANSWER = "Here are three fruits:\n\n1. Bananas\n2. Apples, red or green\n3. Pears"
CUTS = range(1, len(ANSWER))
# Below this many characters an answer so far is too short to tell a repetition from a new text.
TELLING = [at for at in CUTS if len(ANSWER[:at].strip()) >= REPEATED_CHARS_MIN]
DONE = Finish("stop")


def fed(text: str, *pieces: str, is_verified: bool = False, at_once: bool = False):
    """Feed the pieces and a finish; return (has begun anew, the text that left)."""
    seam = Seam(text, is_verified=is_verified)
    items = [*map(Token, pieces), DONE]
    lists = [items] if at_once else [[item] for item in items]
    left = [item for each in lists for item in seam.feed(each, 0.0)]
    if not seam.has_begun_anew:
        assert left[-1] is DONE
    return seam.has_begun_anew, "".join(item.text for item in left if isinstance(item, Token))


def letters(text: str) -> list[str]:
    return list(text)


def words(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")[:-1]] + text.split(" ")[-1:]


def whole(text: str) -> list[str]:
    return [text]


PIECES = pytest.mark.parametrize("pieces", [letters, words, whole])


@PIECES
@pytest.mark.parametrize("is_verified", [False, True])
def test_a_server_that_goes_on_after_the_trimmed_text_gives_the_exact_answer(pieces, is_verified):
    """It generates the white space again, which readers have: at every cut."""
    for at in CUTS:
        so_far = ANSWER[:at]
        rest = ANSWER[len(so_far.rstrip()) :]

        has_begun_anew, text = fed(so_far, *pieces(rest), is_verified=is_verified)

        assert not has_begun_anew and so_far + text == ANSWER, at


@PIECES
def test_a_server_that_goes_on_without_the_white_space_loses_none_of_it(pieces):
    for at in CUTS:
        has_begun_anew, text = fed(ANSWER[:at], *pieces(ANSWER[at:].lstrip()))

        assert not has_begun_anew
        assert ANSWER[:at] + text == ANSWER[:at] + ANSWER[at:].lstrip(), at


@PIECES
def test_a_server_that_echoes_the_answer_so_far_gives_the_exact_answer(pieces):
    for at in TELLING:
        has_begun_anew, text = fed(ANSWER[:at], *pieces(ANSWER))

        assert not has_begun_anew and ANSWER[:at] + text == ANSWER, at


@PIECES
def test_a_server_that_is_known_to_echo_gives_the_exact_answer_from_the_first_character(pieces):
    for at in CUTS:
        seam = Seam(ANSWER[:at], is_verified=True, is_echoing=True)
        items = [*map(Token, pieces(ANSWER)), DONE]
        left = [item for each in items for item in seam.feed([each], 0.0)]

        assert ANSWER[:at] + "".join(item.text for item in left[:-1]) == ANSWER, at


@PIECES
def test_a_server_that_echoes_behind_white_space_gives_the_exact_answer(pieces):
    for at in TELLING:
        has_begun_anew, text = fed(ANSWER[:at], *pieces("\n " + ANSWER))

        assert not has_begun_anew and ANSWER[:at] + text == ANSWER, at


@pytest.mark.parametrize(
    ("is_verified", "least"), [(False, ANEW_CHARS), (True, ANEW_CHARS_VERIFIED)]
)
def test_a_server_that_begins_anew_in_other_words_is_noticed(is_verified, least):
    """The new answer equals the old one for a while, and then differs."""
    for equal in range(len(ANSWER)):
        so_far = ANSWER + " and more"
        anew = ANSWER[:equal] + "#" + "x" * 100

        has_begun_anew, text = fed(so_far, *letters(anew), is_verified=is_verified)

        assert has_begun_anew == (equal >= least), equal
        assert text == ("" if has_begun_anew else anew), "nothing of a new answer gets through"


def test_thoughts_before_the_text_are_a_new_answer():
    seam = Seam("Hello", is_verified=True)

    assert seam.feed([Reasoning("hm")], 0.0) == []
    assert seam.has_begun_anew
    assert seam.feed([Token("more"), DONE], 0.0) == []


@pytest.mark.parametrize("is_verified", [False, True])
def test_another_text_passes_at_its_first_character(is_verified):
    seam = Seam(ANSWER, is_verified=is_verified)

    assert seam.feed([Token(" and")], 0.0) == [Token(" and")]
    assert seam.feed([Token("Here are three fruits")], 0.0) == [Token("Here are three fruits")]


def test_a_short_answer_that_repeats_itself_is_not_a_new_one():
    assert fed("a", "a", "a") == (False, "aa")
    assert fed("ha ha ", "ha", " ha ha", is_verified=True) == (False, "ha ha ha")


def test_an_answer_that_ends_at_the_seam_adds_nothing():
    assert fed("Hello\n") == (False, "")
    assert fed("Hello\n", "\n") == (False, "")
    assert fed("Hello", "Hello") == (False, "")


def test_white_space_that_the_continuation_adds_stays():
    assert fed("one\n", "\n\n", "two") == (False, "\ntwo")
    assert fed("one ", "\n", "two") == (False, "\ntwo")
    assert fed("one", " ", "two") == (False, " two")


def test_text_that_equals_the_beginning_is_released_after_the_bound_of_time():
    seam = Seam(ANSWER, is_verified=False)
    assert seam.feed([Token("Here are")], 7.0) == []
    assert seam.held_since_s == 7.0

    assert seam.release() == [Token("Here are")]

    assert seam.held_since_s is None
    assert seam.feed([Token(" green")], 9.0) == [Token(" green")]
    assert not seam.has_begun_anew


def test_a_new_answer_is_noticed_after_the_bound_of_time_as_well():
    seam = Seam(ANSWER, is_verified=False)
    seam.feed([Token("Here are")], 0.0)
    seam.release()

    assert seam.feed([Token(" three")], 2.0) == [Token(" three")]
    assert seam.feed([Token(" fruits")], 2.0) == []
    assert seam.has_begun_anew


def test_held_text_has_a_bound_of_characters():
    seam = Seam("x" * 3 * HELD_CHARS_MAX, is_verified=True)
    held = 0
    while not seam.has_begun_anew:
        assert seam.feed([Token("x" * 64)], 0.0) == []
        held += 64

    assert held <= HELD_CHARS_MAX + 64


def test_a_long_echo_in_one_piece_is_dropped():
    so_far = "abcdefgh " * HELD_CHARS_MAX

    assert fed(so_far, so_far + "end") == (False, "end")


def test_what_comes_with_dropped_text_is_kept():
    extra = {"chunk": {"system_fingerprint": "f"}}
    seam = Seam("Hello there\n", is_verified=False)
    items = [Token("Hello", extra), Usage(1, 2, 3), Token(" there\n and"), ToolCall(0, "c", "f")]

    assert seam.feed(items, 0.0) == [
        Extra(extra),
        Usage(1, 2, 3),
        Token(" and"),
        ToolCall(0, "c", "f"),
    ]


def test_the_cut_of_the_pieces_does_not_matter():
    for at in TELLING:
        outcomes = {
            fed(ANSWER[:at], *pieces(said), at_once=at_once)
            for pieces in (letters, words, whole)
            for at_once in (False, True)
            for said in [ANSWER]
        }
        assert len(outcomes) == 1, at
