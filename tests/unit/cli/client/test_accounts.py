"""`tailrace usage` and `tailrace forget`, against a node of the test."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cli.client.account_client import AccountClient
from cli.client.accounts import erase, forget, report
from shared.config.settings import Settings

FIGURES = {
    "prompts": 1, "input_tokens": 1_200, "output_tokens": 3, "cached_tokens": 0,
    "estimated_tokens": 3, "seconds": 1.25,
}  # fmt: skip


def row(owner: str | None, model: str | None = "demo", day: str | None = "2026-01-31") -> Any:
    return {"owner": owner, "model": model, "day": day, **FIGURES}


@asynccontextmanager
async def node(answers: list[Any]) -> AsyncIterator[tuple[AccountClient, list[str]]]:
    """A node that gives these answers in order; yields a client, and the requests."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.raw_path}")
        return web.json_response(answers[min(len(asked), len(answers)) - 1])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with AccountClient(url) as client:
            yield client, asked
    finally:
        await runner.cleanup()


def args(**given: Any) -> argparse.Namespace:
    named = {
        "first": "", "last": "", "by": "", "owner": "", "json": False, "csv": False,
        "keep_usage": False, "yes": True,
    }  # fmt: skip
    return argparse.Namespace(**{**named, **given})


async def test_a_table_has_the_groups_and_the_sums(capsys: Any) -> None:
    async with node([{"data": [row("a", day=None), row("b", day=None)], "next_after": None}]) as (
        client, asked,
    ):  # fmt: skip
        assert await report(client, args(first="2026-01-01", by="owner,model", owner="*")) == 0

    assert asked == ["GET /v1/usage?from=2026-01-01&group_by=owner%2Cmodel&owner=%2A"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "OWNER", "MODEL", "PROMPTS", "IN", "OUT", "CACHED", "ESTIMATED", "SECONDS",
    ]  # fmt: skip
    assert lines[1].split()[:4] == ["a", "demo", "1", "1,200"]
    assert lines[3].split() == ["total", "2", "2,400", "6", "0", "6", "2"]


async def test_pages_are_joined_and_equal_rows_are_added_up(capsys: Any) -> None:
    pages = [
        {"data": [row(None, "x", None)], "next_after": "m"},
        {"data": [row(None, "x", None), row(None, "y", None)], "next_after": None},
    ]
    async with node(pages) as (client, asked):
        await report(client, args(by="model", json=True))

    rows = json.loads(capsys.readouterr().out)["data"]
    assert [(each["model"], each["prompts"]) for each in rows] == [("x", 2), ("y", 1)]
    assert asked[1].endswith("&after=m")


async def test_csv_has_a_header_and_runs_no_formula(capsys: Any) -> None:
    async with node([{"data": [row("=1+1", "demo", None)], "next_after": None}]) as (client, _):
        await report(client, args(csv=True))

    (line,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (line["owner"], line["day"], line["input_tokens"]) == ("'=1+1", "", "1200")


async def test_an_empty_report_is_a_table_with_zeros(capsys: Any) -> None:
    async with node([{"data": [], "next_after": None}]) as (client, _):
        assert await report(client, args()) == 0

    assert "PROMPTS" in capsys.readouterr().out


async def test_forgetting_walks_until_a_walk_finds_nothing(capsys: Any) -> None:
    steps = [
        {"deleted": {"files": 2}, "next": "files"},
        {"deleted": {"files": 1, "usage": 1}, "next": None},
        {"deleted": {"generations": 1}, "next": None},
        {"deleted": {}, "next": None},
    ]
    async with node(steps) as (client, asked):
        assert await erase(client, args(owner="a/b c", keep_usage=True)) == 0

    assert asked[0] == "DELETE /v1/owners/a%2Fb%20c?usage=keep"
    assert asked[1].endswith("after=files")
    assert len(asked) == 4
    assert capsys.readouterr().out == "a/b c: 3 files, 1 generations, usage\n"


def test_nothing_is_deleted_without_a_confirmation(monkeypatch: Any, capsys: Any) -> None:
    class Answers(io.StringIO):
        def isatty(self) -> bool:
            return True

    settings = Settings(url="http://127.0.0.1:9")
    monkeypatch.setattr("sys.stdin", Answers("bob\n"))
    assert forget(settings, args(owner="alice", yes=False)) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("alice\n"))
    assert forget(settings, args(owner="alice", yes=False)) == 2
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["usage", "--json", "--csv"], ["forget"]])
def test_an_impossible_command_line_is_refused(words: list[str]) -> None:
    from cli.main import build_parser

    with pytest.raises(SystemExit):
        build_parser().parse_args(words)
