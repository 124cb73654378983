"""Owners: who is known, and how often held work is logged."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import fakeredis
import pytest

from jobs.owners import KEY_FILE_CHECK_S, LOG_APART_S, LOGGED_MAX, Owners
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.later.token_owners import note_planner
from shared.queue.allowance import ADMIT, SETTLE, line_admission, settlement
from shared.redis import keys
from shared.redis.scripts import Scripts


def test_with_keys_only_their_owners_are_known() -> None:
    owners = Owners.from_settings(Settings(api_keys="a:alice,b:alice,c:olga:admin"))

    assert owners.is_named("alice") and owners.is_named("olga")
    assert not owners.is_named("anonymous")
    assert not owners.is_named("")


def test_without_keys_only_anonymous_is_known() -> None:
    owners = Owners.from_settings(Settings())

    assert owners.is_named("anonymous")
    assert not owners.is_named("alice")


def test_malformed_keys_stop_the_start() -> None:
    with pytest.raises(ConfigurationError):
        Owners.from_settings(Settings(api_keys="nothing"))


def test_each_owner_is_logged_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    owners = Owners((), clock=lambda: now_s)
    with caplog.at_level(logging.WARNING):
        for owner in ("alice", "alice", "bob"):
            owners.log_schedule_held(owner, "sched_1")
        owners.log_batch_held("alice", "batch_1")
        assert len(caplog.records) == 3

        now_s = LOG_APART_S
        owners.log_schedule_held("alice", "sched_1")
        assert len(caplog.records) == 4


def test_the_number_of_remembered_owners_is_bounded() -> None:
    owners = Owners(())
    for number in range(3 * LOGGED_MAX):
        owners.log_batch_held(f"owner {number}", "batch_1")

    assert len(owners._logged_s) <= LOGGED_MAX


async def test_an_owner_who_plans_with_tokens_is_known_while_tokens_are_accepted() -> None:
    redis = fakeredis.FakeAsyncRedis()
    await note_planner(redis, "tom", time.time())
    with_tokens = Settings(api_keys="a:alice", jwt_secret="s" * 32)

    assert await Owners.from_settings(with_tokens, redis).is_known("tom")
    assert await Owners.from_settings(with_tokens, redis).is_known("alice")
    assert not await Owners.from_settings(with_tokens, redis).is_known("bob")
    assert not await Owners.from_settings(Settings(api_keys="a:alice"), redis).is_known("tom")
    acting = Settings(api_keys="a:alice:act")
    assert await Owners.from_settings(acting, redis).is_known("tom")


async def test_with_tokens_and_no_keys_anonymous_is_unknown() -> None:
    owners = Owners.from_settings(Settings(jwt_secret="s" * 32), fakeredis.FakeAsyncRedis())

    assert not await owners.is_known("anonymous")


def test_a_key_that_is_taken_from_the_file_takes_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("a:alice\nb:bob\n")
    now_s = 0.0
    owners = Owners.from_settings(Settings(api_keys=str(path)))
    owners._clock = lambda: now_s
    owners._looked_s = 0.0
    new = tmp_path / "new"
    new.write_text("b:bob\n")
    new.replace(path)
    assert owners.is_named("alice"), "the file is looked at once a second"

    now_s = KEY_FILE_CHECK_S

    assert not owners.is_named("alice")
    assert owners.is_named("bob")


async def test_the_lines_of_an_owner_may_run_until_the_tokens_of_the_day_are_used_up(
    tmp_path: Path,
) -> None:
    redis = fakeredis.FakeAsyncRedis()
    scripts = Scripts(redis)
    path = tmp_path / "limits.toml"
    path.write_text("[owners.alice]\ntokens_per_day = 100\nactive_max = 1\n")
    settings = Settings(api_keys="a:alice,b:bob", limits=str(path))
    owners = Owners.from_settings(settings, redis)
    assert await owners.has_tokens_left("alice")

    for owner in ("alice", "bob"):
        await scripts.run(ADMIT, *line_admission(owner, "gen_1", 60.0))
        await scripts.run(SETTLE, *settlement(owner, "gen_1", 100))

    assert not await owners.has_tokens_left("alice")
    assert await owners.has_tokens_left("bob"), "without a limit"
    assert owners.limits_of("alice").of_lines.active_max == 0
    key = keys.owner_limits("alice")
    await redis.hincrby(key, "day", -1)
    assert await owners.has_tokens_left("alice"), "those of yesterday"
