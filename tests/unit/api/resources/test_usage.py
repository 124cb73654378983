"""/v1/usage: who sees what, the groups, the bounds of the query, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date
from typing import Any
from urllib.parse import quote

import pytest

from api.resources import usage as usage_module
from api.resources.usage import read_query
from shared.errors import RequestError
from shared.usage.figures import Figures
from shared.usage.ledger import Fact, Ledger
from tests.support.shell import ALICE, BOB, OPERATOR, Shell

TODAY = date(2026, 3, 31)


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


async def use(shell: Shell, owner: str, model: str = "demo", **figures: int) -> None:
    ledger = Ledger(shell.redis, shell.settings)
    now_ms = await shell.store.now_ms()
    some = Figures(prompts=1, **figures)
    await ledger.settle([Fact(owner, f"gen_{owner}_{model}", now_ms, now_ms, model, some)])


async def report(shell: Shell, query: str = "", **headers: str) -> Any:
    answer = await shell.get(f"/v1/usage{query}", **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_an_owner_sees_the_own_usage_in_the_promised_members(shell: Shell) -> None:
    await use(shell, "alice", input=10, output=5, cached=4, estimated=15, held_ms=1_234)
    await use(shell, "bob", input=1)

    body = await report(shell)

    (row,) = body["data"]
    assert row.pop("day").startswith("20")
    assert row == {
        "owner": "alice", "model": "demo", "prompts": 1, "input_tokens": 10, "output_tokens": 5,
        "cached_tokens": 4, "estimated_tokens": 15, "seconds": 1.234,
    }  # fmt: skip
    assert body["next_after"] is None
    assert (await report(shell, **BOB))["data"][0]["owner"] == "bob"


@pytest.mark.parametrize("owner", ["*", "bob"])
async def test_only_an_operator_sees_the_usage_of_others(shell: Shell, owner: str) -> None:
    await use(shell, "alice")
    await use(shell, "bob")

    assert (await shell.get(f"/v1/usage?owner={owner}", **ALICE)).status_code == 403
    body = await report(shell, f"?owner={owner}", **OPERATOR)
    found = [row["owner"] for row in body["data"]]
    assert found == (["alice", "bob"] if owner == "*" else ["bob"])


async def test_an_operator_who_names_no_owner_sees_all(shell: Shell) -> None:
    await use(shell, "alice")
    await use(shell, "bob")

    body = await report(shell, **OPERATOR)

    assert [row["owner"] for row in body["data"]] == ["alice", "bob"]


async def test_members_that_are_not_in_group_by_are_null_and_their_rows_are_added_up(
    shell: Shell,
) -> None:
    await use(shell, "alice", "a", input=1)
    await use(shell, "alice", "b", input=2)
    await use(shell, "bob", "b", input=4)

    by_model = await report(shell, "?owner=*&group_by=model", **OPERATOR)

    assert [(row["owner"], row["model"], row["day"]) for row in by_model["data"]] == [
        (None, "a", None),
        (None, "b", None),
    ]
    assert [row["input_tokens"] for row in by_model["data"]] == [1, 6]


async def test_a_report_of_many_owners_has_pages(shell: Shell, monkeypatch: Any) -> None:
    monkeypatch.setattr(usage_module, "OWNERS_MAX", 2)
    for owner in ("a", "b", "c"):
        await use(shell, owner)

    first = await report(shell, "?owner=*", **OPERATOR)
    second = await report(shell, f"?owner=*&after={first['next_after']}", **OPERATOR)

    assert [row["owner"] for row in first["data"]] == ["a", "b"]
    assert [row["owner"] for row in second["data"]] == ["c"]
    assert second["next_after"] is None


async def test_a_report_with_too_many_rows_is_refused(shell: Shell, monkeypatch: Any) -> None:
    monkeypatch.setattr(usage_module, "ROWS_MAX", 1)
    await use(shell, "alice", "a")
    await use(shell, "alice", "b")

    assert (await shell.get("/v1/usage")).status_code == 422
    assert (await shell.get("/v1/usage?group_by=day")).status_code == 200


async def test_usage_is_given_as_csv(shell: Shell) -> None:
    await use(shell, "alice", '=HYPERLINK("x"),1', input=3)

    answer = await shell.get("/v1/usage", **ALICE, accept="text/csv")

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["owner"] == "alice" and row["input_tokens"] == "3"
    assert row["model"] == '\'=HYPERLINK("x"),1', "a spreadsheet must not run it"


ODD_OWNERS = [
    "*", "*7a", "50%25", "CORP\\alice", "a b&c=d+e#f", "a@b.example", "zoë", "zoë2", "\U0001f40b",
]  # fmt: skip


ReadPage = Callable[[str], Awaitable[tuple[list[str], str | None]]]


async def owners_of_pages(shell: Shell, monkeypatch: Any, read: ReadPage) -> list[str]:
    """Use the odd owners, and return those of all pages, which have one owner each.

    Args:
        read: returns the owners of the page after a value, and the value of the next page.
    """
    monkeypatch.setattr(usage_module, "OWNERS_MAX", 1)
    for owner in ODD_OWNERS:
        await use(shell, owner)
    after: str | None = ""
    found: list[str] = []
    while after is not None and len(found) <= len(ODD_OWNERS):
        owners, after = await read(after)
        found += owners
    return found


@pytest.mark.parametrize("is_encoded", [True, False], ids=["encoded", "as it is"])
async def test_the_header_of_a_csv_page_leads_to_each_owner_once(
    shell: Shell, monkeypatch: Any, is_encoded: bool
) -> None:
    async def read(after: str) -> tuple[list[str], str | None]:
        value = quote(after, safe="") if is_encoded else after
        answer = await shell.get(f"/v1/usage?owner=*&after={value}", **OPERATOR, accept="text/csv")
        next_after = answer.headers.get("x-next-after")
        assert next_after is None or next_after.isascii()
        return [row["owner"] for row in csv.DictReader(io.StringIO(answer.text))], next_after

    assert await owners_of_pages(shell, monkeypatch, read) == sorted(ODD_OWNERS)


async def test_next_after_leads_to_each_owner_once(shell: Shell, monkeypatch: Any) -> None:
    async def read(after: str) -> tuple[list[str], str | None]:
        page = await report(shell, f"?owner=*&after={quote(after, safe='')}", **OPERATOR)
        return [row["owner"] for row in page["data"]], page["next_after"]

    assert await owners_of_pages(shell, monkeypatch, read) == sorted(ODD_OWNERS)


@pytest.mark.parametrize("after", ["*7", "*zz", "*ff"])
async def test_a_wrong_coded_name_is_refused(shell: Shell, after: str) -> None:
    answer = await shell.get(f"/v1/usage?owner=*&after={after}", **OPERATOR)

    assert answer.status_code == 422 and "next_after" in answer.text


async def test_other_media_types_are_refused(shell: Shell) -> None:
    assert (await shell.get("/v1/usage", **ALICE, accept="image/png")).status_code == 406


async def test_the_route_is_absent_where_usage_is_not_counted() -> None:
    shell = Shell(usage_days=0)

    answer = await shell.get("/v1/usage")

    assert answer.status_code == 404 and "TAILRACE_USAGE_DAYS" in answer.text


def test_the_default_is_the_thirty_days_up_to_today() -> None:
    query = read_query({}, TODAY, 400)

    assert (query.first, query.last) == (date(2026, 3, 2), TODAY)
    assert read_query({"to": "2026-01-30"}, TODAY, 400).first == date(2026, 1, 1)
    assert read_query({"from": "2026-03-31"}, TODAY, 400).last == TODAY


@pytest.mark.parametrize(
    "query",
    [
        {"from": "2026-04-01"},
        {"from": "2026-02-30"},
        {"from": "20260201"},
        {"to": "2026-W01-1"},
        {"from": "yesterday"},
        {"from": "2025-01-01"},
        {"to": "0001-01-01", "from": "2026-01-01"},
        {"group_by": "session"},
        {"group_by": "owner,"},
    ],
    ids=str,
)
def test_an_invalid_query_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(RequestError) as caught:
        read_query(query, TODAY, 400)

    assert caught.value.status == 422


def test_the_first_days_of_the_calendar_do_not_overflow() -> None:
    assert read_query({"to": "0001-01-01", "from": "0001-01-01"}, TODAY, 400).first.year == 1
    with pytest.raises(RequestError):
        read_query({"to": "0001-01-01"}, TODAY, 400)
