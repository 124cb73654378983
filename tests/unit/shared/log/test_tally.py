"""The tokens of an answer over its attempts: reported by servers, or counted and marked."""

from __future__ import annotations

import pytest

from shared.log.events import Counts, Reasoning, Reset, Token, ToolCall, Usage
from shared.log.request import Request
from shared.log.tally import Tally, count_prompt, rest_of

MARK = {"estimated": True}


def tally_of(*events) -> Tally:
    tally = Tally()
    for event in events:
        tally.add(event)
    return tally


def words(count: int) -> list[Token]:
    return [Token(" one") for _ in range(count)]


def test_the_report_of_a_single_attempt_stays_as_it_is():
    reported = Usage(46, 29, 80, {"prompt_tokens_details": {"cached_tokens": 3}})

    assert tally_of(*words(29)).whole(reported) == reported


def test_a_text_counts_as_its_event():
    one, other = Tally(), Tally()
    for text in ("a", " longer piece of a text", " ", " short" * 9):
        assert one.add_text(text) == other.completion_tokens
        other.add(Token(text))
    one.add(Usage(1, 5, 6))
    other.add(Usage(1, 5, 6))

    assert one.add_text("a") == other.completion_tokens == 5
    assert one.completion_tokens == 6


def test_a_continuation_adds_to_what_the_first_attempt_had_reported():
    tally = tally_of(Usage(46, 23, 69))
    tally.begin_attempt()

    assert tally.whole(Usage(69, 6, 75, {"a": 1})) == Usage(46, 29, 75, {"a": 1})


def test_tokens_that_no_server_has_reported_are_counted_and_marked():
    """The second report's prompt holds them, so the sum of all tokens is exact."""
    tally = tally_of(*words(23))
    tally.begin_attempt()

    assert tally.whole(Usage(69, 6, 75)) == Usage(46, 29, 75, MARK)


def test_a_prompt_that_does_not_hold_the_answer_so_far_is_taken_as_it_is():
    tally = tally_of(*words(23))
    tally.begin_attempt()

    assert tally.whole(Usage(7, 6, 13)) == Usage(7, 29, 36, MARK)


def test_the_second_prompt_tells_the_tokens_if_the_first_prompt_is_known():
    """A running count, and then a worker that dies: 23 tokens, of which the log shows 10 pieces."""
    tally = tally_of(Usage(46, 1, 47), *words(10))
    tally.begin_attempt()

    assert tally.completion_tokens == 11
    assert tally.whole(Usage(69, 6, 75)) == Usage(46, 29, 75)


def test_three_attempts_are_summed():
    tally = tally_of(Usage(46, 10, 56))
    for completion, prompt in ((7, 56), (5, 63)):
        tally.begin_attempt()
        tally.add(tally.whole(Usage(prompt, completion, prompt + completion)))

    assert tally.usage == Usage(46, 22, 68)


def test_a_mark_stays():
    tally = tally_of(*words(23))
    tally.begin_attempt()
    tally.add(tally.whole(Usage(69, 6, 75)))
    tally.begin_attempt()

    assert tally.whole(Usage(75, 1, 76)).extra == MARK


def test_a_reset_makes_earlier_tokens_void():
    tally = tally_of(*words(9), Usage(46, 9, 55))
    tally.begin_attempt()
    tally.add(Reset("restarted"))

    assert tally.completion_tokens == 0
    assert tally.whole(Usage(46, 29, 75)) == Usage(46, 29, 75)


def test_running_counts_are_completed_by_what_follows_them():
    tally = tally_of(*words(5), Usage(46, 5, 51), *words(3))

    assert tally.counts(0) == Counts(46, 8, 54, MARK)


def test_without_any_report_the_prompt_is_counted_as_well():
    assert tally_of(*words(4)).counts(11) == Counts(11, 4, 15, MARK)


def test_counts_that_are_whole_are_not_marked():
    assert tally_of(*words(5), Usage(46, 5, 51)).counts(9) == Counts(46, 5, 51)


@pytest.mark.parametrize(
    ("events", "tokens"),
    [
        ([Token("x" * 600)], 100),  # many tokens joined in one event
        ([Token("字")] * 7, 7),
        ([Reasoning("hm"), ToolCall(0, "c", "f"), ToolCall(0, arguments="{}")], 2),
        ([Token(""), None], 0),
    ],
)
def test_how_tokens_are_counted(events, tokens):
    assert tally_of(*events).completion_tokens == tokens


def test_a_prompt_is_counted_by_its_texts():
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 999}}
    messages = [
        {"role": "system", "content": "abcd"},
        {"role": "user", "content": [{"type": "text", "text": "efghi"}, image]},
        {"role": "assistant", "content": None},
    ]

    assert count_prompt(Request(messages)) == 3


@pytest.mark.parametrize(
    ("params", "given", "rest"),
    [
        ({"max_tokens": 80}, 30, {"max_tokens": 50}),
        ({"max_completion_tokens": 80, "min_tokens": 10}, 30,
         {"max_completion_tokens": 50, "min_tokens": 0}),
        ({"max_tokens": 80}, 80, None),
        ({"max_tokens": 80, "max_completion_tokens": 10}, 10, None),
        ({"max_tokens": None, "temperature": 0}, 30, {"max_tokens": None, "temperature": 0}),
        ({"max_tokens": "80"}, 30, {"max_tokens": "80"}),
        ({"max_tokens": -1}, 30, {"max_tokens": -1}),
        ({"min_tokens": 5}, 30, {"min_tokens": 0}),
        ({}, 30, {}),
    ],
)  # fmt: skip
def test_the_rest_of_a_bounded_answer(params, given, rest):
    found = rest_of(Request([], params), given)

    assert (None if found is None else found.params) == rest
