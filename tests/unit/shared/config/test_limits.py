"""The limits of each owner: what the environment, limits.toml and a token's claim add up to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from shared.config.limits import (
    Limits,
    OwnerLimits,
    claim_problem,
    defaults_of,
    parse_limits,
)
from shared.config.settings import Settings
from shared.errors import ConfigurationError

DEFAULTS = OwnerLimits(active_max=8, tokens_per_day=1_000)
TEXT = """
[groups.free]
owners = ["alice", "team-*"]
active_max = 2
prompts_per_min = 10

[groups.paid]
owners = ["team-1"]
active_max = 50

[owners.alice]
active_max = 4
weight = 3

[owners.root]
tokens_per_day = 0
"""


@pytest.fixture
def limits() -> Limits:
    return parse_limits(TEXT, DEFAULTS, "limits.toml")


@pytest.mark.parametrize(
    ("owner", "groups", "claims", "expected"),
    [
        ("nobody", (), {}, DEFAULTS),
        ("alice", (), {}, OwnerLimits(3, 4, 0, 10, 0, 1_000)),
        ("team-1", (), {}, OwnerLimits(1, 2, 0, 10, 0, 1_000)),
        ("team-1", ("staff", "paid"), {}, OwnerLimits(1, 50, 0, 0, 0, 1_000)),
        ("root", (), {}, OwnerLimits(active_max=8)),
        ("nobody", ("staff",), {}, DEFAULTS),
        ("alice", (), {"active_max": 0, "other": 1}, OwnerLimits(3, 0, 0, 10, 0, 1_000)),
    ],
    ids=["default", "owner and group", "first group", "named group", "none", "foreign", "claim"],
)
def test_the_nearest_place_that_has_a_value_counts(
    limits: Limits,
    owner: str,
    groups: tuple[str, ...],
    claims: Mapping[str, Any],
    expected: OwnerLimits,
) -> None:
    assert limits.of(owner, groups, claims) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[owners", "is not TOML"),
        ("[users.a]\nweight = 1", "unknown table 'users'"),
        ("owners = 3", "table of tables"),
        ("[owners]\na = 3", "owners.a: must be a table"),
        ("[owners.a]\nactive = 3", "unknown member 'active'"),
        ("[owners.a]\nactive_max = -1", "owners.a.active_max: must be a whole number"),
        ("[owners.a]\nactive_max = true", "must be a whole number"),
        ("[owners.a]\nactive_max = 1.5", "must be a whole number"),
        ("[owners.a]\nweight = 0", "from 1 to 100"),
        ("[owners.a]\nowners = ['b']", "unknown member 'owners'"),
        ("[groups.a]\nowners = 'b'", "groups.a.owners: must list"),
        ("[groups.a]\nowners = ['a*b']", "its beginning and then a"),
    ],
    ids=range(12),
)
def test_a_file_with_a_mistake_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse_limits(text, DEFAULTS, "limits.toml")


@pytest.mark.parametrize("value", [-1, "5", True, None, 2**40, 1.5], ids=repr)
def test_a_claim_with_a_wrong_value_is_named_and_not_quoted(value: Any) -> None:
    assert claim_problem({"active_max": value}).startswith("active_max must be")


def test_the_environment_gives_the_defaults() -> None:
    settings = Settings(owner_active_max=3, owner_tokens_per_day=7)

    assert defaults_of(settings) == OwnerLimits(active_max=3, tokens_per_day=7)
    assert not defaults_of(Settings()).has_prompt_limit
