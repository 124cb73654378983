"""Which members of a request a local model obeys, and which it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from workers.local_model.prompt import PromptRefused
from workers.local_model.sampling import TEMPERATURE, read_sampling


def test_without_params_the_model_card_decides_and_the_id_is_the_seed() -> None:
    one, same, other = (read_sampling({}, seed) for seed in ("gen_a", "gen_a", "gen_b"))

    assert one == same and one.seed != other.seed
    assert (one.temperature, one.max_tokens, one.stops) == (TEMPERATURE, None, ())


def test_the_smaller_of_two_limits_counts() -> None:
    assert read_sampling({"max_tokens": 9, "max_completion_tokens": 5}, "").max_tokens == 5


def test_a_seed_of_the_client_wins_and_may_be_negative() -> None:
    assert read_sampling({"seed": -1}, "gen_a").seed == 2**32 - 1


def test_stop_is_a_string_or_a_list() -> None:
    assert read_sampling({"stop": "END"}, "").stops == ("END",)
    assert read_sampling({"stop": ["a", ""]}, "").stops == ("a",)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 on"),
        ({"max_tokens": True}, "max_tokens must be"),
        ({"temperature": 3}, "temperature must be a number from 0 to 2"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"stop": [1]}, "stop must be a string or a list"),
        ({"stop": ["x"] * 17}, "stop may have 16 strings"),
        ({"logprobs": True}, "does not support logprobs"),
        ({"tool_choice": "required"}, "calls no tools"),
        ({"response_format": {"type": "json_object"}}, "no structured output"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_value_that_cannot_be_obeyed_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptRefused, match=message):
        read_sampling(params, "")


def test_tools_and_unknown_members_are_ignored() -> None:
    params = {
        "tools": [{"type": "function"}],
        "tool_choice": "auto",
        "user": "u",
        "logprobs": False,
    }

    assert read_sampling(params, "gen_a") == read_sampling({}, "gen_a")
