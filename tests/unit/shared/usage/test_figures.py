"""The figures of one generation, from the counts that servers report."""

from __future__ import annotations

from typing import Any

import pytest

from shared.log.events import Counts
from shared.usage.figures import Figures, figures_of, pack, unpack


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt_tokens_details": {"cached_tokens": 7}},
        {"input_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 2}},
        {"prompt_cache_hit_tokens": 7, "prompt_cache_miss_tokens": 3},
        {"cache_read_input_tokens": 7},
    ],
    ids=["openai", "responses", "deepseek", "anthropic"],
)
def test_the_cached_part_of_the_prompt_is_found_under_every_known_name(extra: Any) -> None:
    assert figures_of(Counts(10, 5, 15, extra), 0).cached == 7


@pytest.mark.parametrize(
    "extra", [None, {"cached_tokens": True}, {"prompt_tokens_details": [1]}, {"cached_tokens": -1}]
)
def test_an_odd_count_of_cached_tokens_is_none(extra: Any) -> None:
    assert figures_of(Counts(10, 5, 15, extra), 0).cached == 0


def test_no_more_is_cached_than_the_prompt_has() -> None:
    assert figures_of(Counts(10, 5, 15, {"cached_tokens": 99}), 0).cached == 10


def test_all_tokens_of_an_answer_with_an_estimated_part_are_estimated() -> None:
    assert figures_of(Counts(10, 5, 15, {"estimated": True}), 0).estimated == 15
    assert figures_of(Counts(10, 5, 15), 0).estimated == 0


def test_a_generation_without_counts_is_a_prompt_without_tokens() -> None:
    assert figures_of(None, 1_500) == Figures(prompts=1, held_ms=1_500)


def test_figures_are_unpacked_as_they_were_packed() -> None:
    figures = Figures(1, 2, 3, 4, 5, 6)

    assert unpack(pack(figures).encode()) == figures
