"""Owners without a key who plan work: noted, renewed, forgotten."""

from __future__ import annotations

import fakeredis
import pytest

from shared.later import token_owners
from shared.later.token_owners import (
    RENEW_S,
    TOKEN_OWNER_KNOWN_S,
    SeenOwners,
    is_planner,
    note_planner,
    renew_planners,
)

NOW = 1_800_000_000.0


@pytest.fixture
def redis() -> fakeredis.FakeAsyncRedis:
    return fakeredis.FakeAsyncRedis()


async def test_a_planner_is_known_for_thirty_days_after_the_last_token(
    redis: fakeredis.FakeAsyncRedis,
) -> None:
    await note_planner(redis, "alice", NOW)
    await renew_planners(redis, {"alice", "bob"}, NOW + 10)

    assert await is_planner(redis, "alice", NOW + TOKEN_OWNER_KNOWN_S + 9)
    assert not await is_planner(redis, "alice", NOW + TOKEN_OWNER_KNOWN_S + 11)
    assert not await is_planner(redis, "bob", NOW + 10), "he has planned nothing"


async def test_those_who_are_not_known_any_more_take_no_room(
    redis: fakeredis.FakeAsyncRedis,
) -> None:
    await note_planner(redis, "alice", NOW)
    await note_planner(redis, "bob", NOW + TOKEN_OWNER_KNOWN_S + 1)

    assert await redis.zcard("tr:{jobs}:token-owners") == 1


def test_an_owner_is_noted_once_an_hour() -> None:
    seen = SeenOwners()
    for second in (0, 1, RENEW_S - 1):
        seen.add("alice", second)
    assert seen.take() == {"alice"}
    assert seen.take() == set()

    seen.add("alice", RENEW_S)

    assert seen.take() == {"alice"}


def test_the_number_of_seen_owners_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_owners, "OWNERS_MAX", 3)
    seen = SeenOwners()
    for number in range(10):
        seen.add(f"o{number}", 0)

    assert seen.take() == {"o0", "o1", "o2"}
