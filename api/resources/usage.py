"""/v1/usage: the usage of owners, as JSON or CSV. Source: docs/protocol.md, "Usage of owners"."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.intake.body import invalid_request
from api.intake.negotiation import choose_media_type
from api.node import Node
from api.response import json_response
from shared.config.credentials import EVERYBODY
from shared.errors import NotFound
from shared.text.csv_cell import csv_cell
from shared.usage.ledger import Ledger, day_of
from shared.usage.report import COLUMNS, GROUPS, Report

DAYS = 30  # without `from`
OWNERS_MAX = 10_000  # in one answer
OWNERS_AT_ONCE = 100  # in one round trip
ROWS_MAX = 50_000  # of one answer
JSON, CSV = "application/json", "text/csv"
_PLAIN = re.compile(r"[A-Za-z0-9\-._~!$'(),;=:@/?]+", re.ASCII)  # a query may hold them as they are
_CODED = "*"  # begins the coded form of a name
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)  # not the other forms of ISO 8601


class UsageQuery(NamedTuple):
    """The checked query: the first and the last day, and the members that divide the rows."""

    first: date
    last: date
    groups: Sequence[str]


class UsageRoutes:
    """The handler of /v1/usage."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.ledger = Ledger(node.redis, node.settings, node.store.scripts)

    async def get(self, request: Request) -> ASGIApp:
        """GET /v1/usage: of the caller; for operators of all owners, or of a named owner."""
        owner, is_named = self.node.listed_owner(request)
        identity = self.node.identity(request)
        if identity.is_operator and not is_named:
            owner = EVERYBODY
        days = self.node.settings.usage_days
        if not days:
            raise NotFound("usage: it is not counted here, because TAILRACE_USAGE_DAYS is 0")
        media_type = choose_media_type(request.headers.get("accept"), (JSON, CSV))
        query = read_query(request.query_params, day_of(round(time.time() * 1000)), days)
        async with answer_deadline(), self.node.heavy_reads.turn(identity.owner):
            owners, next_after = [owner], None
            if owner == EVERYBODY:
                found = await self.ledger.owners(_read_after(request.query_params.get("after", "")))
                owners = found[:OWNERS_MAX]
                next_after = owners[-1] if len(found) > OWNERS_MAX else None
            report = await self._report(owners, query)
        if media_type == CSV:
            headers = {"cache-control": "no-store"}
            if next_after is not None:
                headers["x-next-after"] = after_in_header(next_after)
            return Response(as_csv(report.data()), 200, headers, media_type=CSV)
        if next_after is not None and next_after.startswith(_CODED):
            next_after = _coded(next_after)
        return json_response({"data": report.data(), "next_after": next_after})

    async def _report(self, owners: Sequence[str], query: UsageQuery) -> Report:
        report = Report(query.groups)
        for start in range(0, len(owners), OWNERS_AT_ONCE):
            some = owners[start : start + OWNERS_AT_ONCE]
            found = await self.ledger.rows(some, query.first, query.last)
            for owner, rows in zip(some, found, strict=True):
                report.add(owner, rows)
            if len(report) > ROWS_MAX:
                raise invalid_request(
                    f"the report has more than {ROWS_MAX} rows: choose fewer days, or group by less"
                )
        return report


def read_query(query: Mapping[str, str], today: date, days_max: int) -> UsageQuery:
    """Return the checked query.

    Args:
        today: the day of now, UTC.
        days_max: for how many days usage is kept.

    Raises:
        RequestError: 422.
    """
    last = _read_day(query, "to") or today
    first = _read_day(query, "from") or max(date.min + timedelta(DAYS), last) - timedelta(DAYS - 1)
    if first > last:
        raise invalid_request(f"from ({first}) must not be after to ({last})")
    if (last - first).days >= days_max:
        raise invalid_request(
            f"from {first} to {last} are {(last - first).days + 1} days: ask for at most "
            f"{days_max}, for which TAILRACE_USAGE_DAYS keeps the usage"
        )
    groups = query.get("group_by") or ",".join(GROUPS)
    names = [name.strip() for name in groups.split(",")]
    if not set(names) <= set(GROUPS):
        raise invalid_request("group_by must be owner, model or day, or several with commas")
    return UsageQuery(first, last, names)


def _read_day(query: Mapping[str, str], name: str) -> date | None:
    text = query.get(name)
    if not text:
        return None
    if _DAY.fullmatch(text) is not None:
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise invalid_request(f"{name} must be a day, as 2026-01-31")


def after_in_header(name: str) -> str:
    """Return a value of `after` for the name of an owner, as the header X-Next-After has it.

    A header holds ASCII only. Some clients put its value into the query as it is, and others
    percent-encode it first. If the value had percent signs, the latter would encode them again, and
    `after` would be another name. So a name that is not plain has a form of plain characters.
    """
    return name if _PLAIN.fullmatch(name) else _coded(name)


def _coded(name: str) -> str:
    return _CODED + name.encode().hex()


def _read_after(text: str) -> str:
    """Return the name behind which a page begins."""
    if not text.startswith(_CODED):
        return text
    try:
        return bytes.fromhex(text.removeprefix(_CODED)).decode()
    except ValueError:
        raise invalid_request("after must be the next_after of the page before") from None


def as_csv(data: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as RFC 4180 says, with a header."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for row in data:
        writer.writerow([csv_cell(row[name]) for name in COLUMNS])
    return out.getvalue()
