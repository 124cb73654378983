"""Owners: who is known, and how often held work is logged."""

from __future__ import annotations

import logging

import pytest

from jobs.owners import LOG_APART_S, LOGGED_MAX, Owners
from shared.config.settings import Settings
from shared.errors import ConfigurationError


def test_with_keys_only_their_owners_are_known() -> None:
    owners = Owners.from_settings(Settings(api_keys="a:alice,b:alice,c:olga:admin"))

    assert owners.is_known("alice") and owners.is_known("olga")
    assert not owners.is_known("anonymous")
    assert not owners.is_known("")


def test_without_keys_only_anonymous_is_known() -> None:
    owners = Owners.from_settings(Settings())

    assert owners.is_known("anonymous")
    assert not owners.is_known("alice")


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
