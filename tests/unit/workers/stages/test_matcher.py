"""Any text, cut anywhere, is filtered like the whole text; and a takeover changes nothing."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.stages.filter.finder_cache import OUTSIDE, PIECES_MAX, Finder, FinderCache
from workers.stages.filter.matcher import PIECE_MAX, Matcher
from workers.stages.filter.patterns import Patterns
from workers.stages.filter.symbols import symbols_of
from workers.stages.filter.words import Words

# Few letters, so that words are frequent; with marks, invisible and wide characters, and the mask.
LETTERS = "abC é\u0301\u200bｂß*+각"
TEXTS = st.text(LETTERS, max_size=14)
WORDS = st.lists(
    st.text("abcé ß+가", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=6
)
PATTERNS = [r"ab*c", r"\bb\b", r"(a|b)+é", r"a.{1,3}b", r"(?i)c[ab]{2}", r"[^a]\+", r"(a+)+c"]


def finders(words: list[str]) -> list[Finder]:
    words = [word.strip() for word in words]
    return [
        Words(words, is_whole=False),
        Words(words, is_whole=True),
        Patterns(PATTERNS, "patterns", max_match=4, mask="*"),
    ]


def whole(finder: Finder, text: str) -> str:
    matcher = Matcher(finder, "*", stops=False)
    return matcher.feed(text) + matcher.flush()


def cut(text: str, places: list[int]) -> list[str]:
    borders = sorted(place % (len(text) + 1) for place in places)
    return [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]


@given(TEXTS, WORDS, st.lists(st.integers(0, 14), max_size=5))
def test_a_text_in_pieces_is_filtered_like_the_whole_text(text, words, places):
    for finder in finders(words):
        matcher = Matcher(finder, "*", stops=False)
        left = ""
        for piece in cut(text, places):
            left += matcher.feed(piece)
            assert matcher.held <= finder.held_max
        left += matcher.flush()

        assert left == whole(finder, text)
        assert len(left) == len(text)


@given(st.lists(st.text(LETTERS, min_size=1, max_size=3), max_size=6), WORDS, st.data())
def test_pieces_that_were_seen_before_leave_as_when_they_were_new(vocabulary, words, data):
    """Many texts of the same few pieces: nearly all of the pieces, and of the seams, are known."""
    pieces = st.lists(st.sampled_from(vocabulary or ["a"]), max_size=8)
    texts = data.draw(st.lists(pieces, min_size=2, max_size=6))
    for finder in finders(words):
        known = FinderCache(finder)
        for text in texts * 3:
            matcher = Matcher(finder, "*", stops=False, known=known)
            left = [matcher.feed(piece) for piece in text]
            new = Matcher(finder, "*", stops=False)
            # `_search` looks at the text itself, and neither reads nor learns what is known.
            assert left == [new._search(piece) for piece in text]
            assert matcher.flush() == new.flush()


def test_what_is_known_has_a_bound():
    finder = Words(["secret"], is_whole=True)
    matcher = Matcher(finder, "*", stops=False, known=(known := FinderCache(finder)))

    for n in range(2 * PIECES_MAX):
        matcher.feed(f" {n} s")
        matcher.feed(chr(0x4E00 + n))

    assert 0 < len(known.pieces[OUTSIDE]) <= PIECES_MAX
    assert 0 < len(known.seams[OUTSIDE]) <= PIECES_MAX
    assert len(known.places) <= PIECES_MAX
    matcher.feed("x" * 100)
    assert not any("x" * 100 in pieces for pieces in known.pieces)


@given(TEXTS, WORDS, st.lists(st.integers(0, 14), max_size=5), st.integers(0, 5))
def test_a_worker_that_finds_the_filtered_text_goes_on_exactly(text, words, places, done):
    for finder in finders(words):
        first = Matcher(finder, "*", stops=False)
        log = "".join(first.feed(piece) for piece in cut(text, places)[:done])
        second = Matcher(finder, "*", stops=False)
        second.fold(log)

        assert log + second.feed(text[len(log) :]) + second.flush() == whole(finder, text)


@given(TEXTS, WORDS, st.lists(st.integers(0, 14), max_size=5))
def test_no_word_of_the_list_leaves(text, words, places):
    words = [word.strip() for word in words]
    finder = Words(words, is_whole=False)
    matcher = Matcher(finder, "*", stops=False)

    left = "".join(map(matcher.feed, cut(text, places))) + matcher.flush()

    for word in words:
        inside = re.escape(symbols_of(word)[0]).replace(r"\ ", r"\s")
        assert not re.search(f"{inside}(?!\ue000)", symbols_of(left)[0]), (word, left)


@given(st.text("abc", max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1))
def test_the_longest_word_at_the_first_place_is_masked_and_nothing_else(text, words):
    expected, at = "", 0
    while at < len(text):
        found = max((len(word) for word in words if text.startswith(word, at)), default=0)
        expected += "*" * found or text[at]
        at += found or 1

    assert whole(Words(words, is_whole=False), text) == expected


@given(TEXTS, WORDS, st.integers(0, 14))
def test_an_interrupted_text_never_shows_a_whole_word(text, words, place):
    """What was held back is shown, and the rest of a word is masked when the text goes on."""
    before, after = cut(text, [place])
    finder = Words([word.strip() for word in words], is_whole=False)
    matcher = Matcher(finder, "*", stops=False)

    shown = matcher.feed(before) + matcher.interrupt()
    left = shown + matcher.feed(after) + matcher.flush()

    assert shown.count("*") <= left.count("*")
    assert len(left) == len(text)
    assert len(shown) == len(before)
    for word in words:
        symbols = re.escape(symbols_of(word.strip())[0]).replace(r"\ ", r"\s")
        assert not re.search(f"{symbols}(?!\ue000)", symbols_of(left)[0])


@given(TEXTS, WORDS, st.lists(st.integers(0, 14), max_size=5))
def test_a_stopped_text_ends_before_the_first_match(text, words, places):
    for finder in finders(words):
        found = finder.find(text, 0, True)
        matcher = Matcher(finder, "*", stops=True)
        left = ""
        for piece in cut(text, places):
            left += matcher.feed(piece)
            if matcher.is_stopped:
                break
        else:
            left += matcher.flush()

        assert matcher.is_stopped == (found is not None)
        assert left == (text if found is None else text[: found[0]])


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_word_is_found_in_every_normal_form(form):
    finder = Words(["crème brûlée", "straße", "바보"], is_whole=True)
    text = unicodedata.normalize(form, "Eine CRÈME BRÛLÉE, Strasse, STRASSE, 바보.")

    left = whole(finder, text)

    assert unicodedata.normalize("NFC", left).replace("*", "") == "Eine , , , ."


def test_a_word_without_accents_is_not_the_word_with_accents():
    finder = Words(["ano", "바보"], is_whole=False)

    assert whole(finder, "un año, un an\u0303o, 바본, ano") == "un año, un an\u0303o, 바본, ***"


def test_a_whole_word_is_not_found_behind_a_letter_with_an_accent():
    finder = Words(["cat"], is_whole=True)

    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, "écat, é cat, écaté")
        assert whole(finder, text) == text.replace(" cat", " ***")
        matcher = Matcher(finder, "*", stops=False)
        assert "".join(map(matcher.feed, text)) + matcher.flush() == text.replace(" cat", " ***")


def test_invisible_characters_do_not_hide_a_word():
    finder = Words(["secret"], is_whole=False)

    assert whole(finder, "a s\u200be\u00adc\u2060ret") == "a *********"


def test_nothing_is_held_back_where_no_word_can_begin():
    matcher = Matcher(Words(["secret", "token"], is_whole=False), "*", stops=False)

    assert [matcher.feed(piece) for piece in ("Hello", " my", " s", "ky to", "y")] == [
        "Hello", " my", " ", "sky ", "toy",
    ]  # fmt: skip


def test_a_whole_word_waits_for_the_character_behind_it():
    matcher = Matcher(Words(["sec"], is_whole=True), "*", stops=False)

    assert [matcher.feed(p) for p in ("a sec", "ret, ", "sec", ".")] == [
        "a ",
        "secret, ",
        "",
        "***.",
    ]
    assert matcher.feed("sec") == ""
    assert matcher.flush() == "***"


def test_a_pattern_takes_time_in_proportion_to_the_text():
    finder = Patterns([r"(a+)+x"], "patterns", max_match=20, mask="*")
    steps = 0
    step = finder._step

    def counted(*args):
        nonlocal steps
        steps += 1
        return step(*args)

    finder._step = counted  # type: ignore[method-assign]

    assert whole(finder, "a" * 5_000) == "a" * 5_000
    assert steps < 20  # the others were known


def test_no_match_is_longer_than_the_bound():
    finder = Patterns([r"\d+"], "patterns", max_match=4, mask="*")

    assert whole(finder, "12345678 x") == "******** x"
    matcher = Matcher(finder, "*", stops=False)
    assert matcher.feed("1234567") == "****"


@pytest.mark.parametrize("size", [PIECE_MAX, PIECE_MAX + 1, 5 * PIECE_MAX - 3])
def test_a_long_piece_is_filtered_like_short_pieces(size):
    finder = Words(["abcab"], is_whole=False)
    text = ("abcabcab" * size)[:size]
    matcher = Matcher(finder, "*", stops=False)
    expected = "".join(map(matcher.feed, text)) + matcher.flush()

    assert whole(finder, text) == expected
    again = Matcher(finder, "*", stops=False)
    again.fold(expected)
    assert again.held == 0
    stopping = Matcher(finder, "*", stops=True)
    assert stopping.feed("x" * size + text) == "x" * size
    assert stopping.is_stopped
