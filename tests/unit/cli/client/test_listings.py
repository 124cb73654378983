"""`tailrace schedules` and `tailrace models ls`, with the answers of a node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.client.listings import ListingClient, models, schedules
from cli.main import build_parser
from shared.config.settings import Settings

SCHEDULE = {
    "id": "sched_1", "object": "schedule", "kind": "batch", "run_at": None, "cron": "0 8 * * *",
    "timezone": "Europe/Berlin", "next_run_at": 1795417200, "last_run_at": None, "last_id": None,
    "last_error": "queue_full", "created_at": 1795255095,
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is asked of the node, which has three pages of one schedule each."""
    found: list[tuple[str, str]] = []

    async def persist(self: ListingClient, method: str, path: str, **_: Any) -> Any:
        found.append((method, path))
        if path == "/v1/models":
            return {"data": [{"id": "demo"}, {"id": "big"}]}
        if method == "DELETE":
            return {"id": "sched_1", "object": "schedule", "deleted": True}
        if path.startswith("/v1/schedules?"):
            following = len(found) if len(found) < 3 else None
            return {"schedules": [SCHEDULE], "next_before": following, "next_after": following}
        return SCHEDULE

    monkeypatch.setattr(ListingClient, "_persist", persist)
    return found


def run(*words: str) -> int:
    args = build_parser().parse_args(words)
    command = schedules if args.command == "schedules" else models
    return command(Settings(), args)


def test_schedules_are_listed_over_all_pages(
    asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("schedules", "ls") == 0
    assert [path for _, path in asked] == [
        "/v1/schedules?", "/v1/schedules?before=1", "/v1/schedules?before=2",
    ]  # fmt: skip
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == [
        "sched_1", "batch", "0", "8", "*", "*", "*", "Europe/Berlin", "2026-11-23", "07:00:00", "-",
        "queue_full",
    ]  # fmt: skip


def test_schedules_of_all_owners_are_walked_by_due_time(asked: list[tuple[str, str]]) -> None:
    assert run("schedules", "ls", "--owner", "*") == 0
    assert asked[-1][1] == "/v1/schedules?owner=%2A&after=2"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("schedules", "ls", "--json"), {"schedules": [SCHEDULE] * 3}),
        (("schedules", "show", "sched_1", "--json"), SCHEDULE),
        (
            ("schedules", "delete", "sched_1", "--json"),
            {"id": "sched_1", "object": "schedule", "deleted": True},
        ),
        (("models", "ls", "--json"), {"data": [{"id": "demo"}, {"id": "big"}]}),
    ],
)
def test_json_is_what_the_node_has_said(
    asked: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    expected: Any,
) -> None:
    assert run(*words) == 0
    assert json.loads(capsys.readouterr().out) == expected


def test_a_schedule_is_shown_and_deleted_and_models_are_listed(
    asked: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("schedules", "show", "sched_1") == 0
    assert "next_run_at  2026-11-23 07:00:00" in capsys.readouterr().out
    assert run("schedules", "delete", "a/b") == 0
    assert asked[-1] == ("DELETE", "/v1/schedules/a%2Fb")
    assert run("models", "ls") == 0
    assert capsys.readouterr().out.endswith("demo\nbig\n")
