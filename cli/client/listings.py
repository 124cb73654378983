"""`tailrace schedules` and `tailrace models ls`: over HTTP, as a table or as JSON.

Exit codes: 0 done, 2 the request is not possible.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from cli.client.client import Client, RequestRefused
from cli.client.exit_code import EXIT_OK
from cli.client.terminal import run_client, say, table
from shared.config.settings import Settings
from shared.text.plain_text import plain_line

PAGES_MAX = 10  # of 100 schedules each


class ListingClient(Client):
    """A client of an API node that can also read schedules and models. Raises as `create` does."""

    async def schedules(self, owner: str) -> tuple[list[dict[str, Any]], bool]:
        """Return the schedules of the caller, or of `owner`, and whether there are more."""
        found: list[dict[str, Any]] = []
        query = {"owner": owner} if owner else {}
        for _ in range(PAGES_MAX):
            page = await self._persist("GET", f"/v1/schedules?{urlencode(query)}")
            found += page["schedules"]
            # The list of all owners is ordered by due time, the others from new to old.
            name = "after" if owner == "*" else "before"
            following = page.get(f"next_{name}")
            if not following:
                return found, False
            query[name] = following
        return found, True

    async def schedule(self, schedule_id: str) -> dict[str, Any]:
        """Return one schedule."""
        return dict(await self._persist("GET", f"/v1/schedules/{quote(schedule_id, safe='')}"))

    async def delete_schedule(self, schedule_id: str) -> dict[str, Any]:
        """End a schedule."""
        return dict(await self._persist("DELETE", f"/v1/schedules/{quote(schedule_id, safe='')}"))

    async def models(self) -> list[dict[str, Any]]:
        """Return the models that clients may name."""
        return list((await self._persist("GET", "/v1/models"))["data"])


def schedules(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action in `args`; return the exit code."""
    client = ListingClient(settings.url, settings.key)
    actions = {"ls": _ls, "show": _show, "delete": _delete}
    return run_client(client, lambda opened: actions[args.action](opened, args), _advice)


def models(settings: Settings, args: argparse.Namespace) -> int:
    """Print the models of a node, one on each line."""
    client = ListingClient(settings.url, settings.key)
    return run_client(client, lambda opened: _models(opened, args), _advice)


async def _ls(client: ListingClient, args: argparse.Namespace) -> int:
    found, has_more = await client.schedules(args.owner)
    if args.json:
        print(json.dumps({"schedules": found}))
    else:
        print(table(["ID", "KIND", "WHEN", "NEXT", "LAST", "ERROR"], map(_row, found)))
    if has_more:
        say(f"only the first {len(found)} schedules are listed")
    return EXIT_OK


async def _show(client: ListingClient, args: argparse.Namespace) -> int:
    found = await client.schedule(args.id)
    if args.json:
        print(json.dumps(found))
        return EXIT_OK
    print(table(["MEMBER", "VALUE"], [[name, _shown(name, found[name])] for name in found]))
    return EXIT_OK


async def _delete(client: ListingClient, args: argparse.Namespace) -> int:
    found = await client.delete_schedule(args.id)
    print(json.dumps(found) if args.json else plain_line(f"{args.id} deleted"))
    return EXIT_OK


async def _models(client: ListingClient, args: argparse.Namespace) -> int:
    found = await client.models()
    if args.json:
        print(json.dumps({"data": found}))
    for model in [] if args.json else found:
        print(plain_line(str(model["id"])))
    return EXIT_OK


def _row(schedule: Mapping[str, Any]) -> list[str]:
    when = schedule["cron"] or "once"
    if schedule["cron"] and schedule["timezone"] not in (None, "UTC"):
        when = f"{when} {schedule['timezone']}"
    return [
        str(schedule["id"]),
        str(schedule["kind"]),
        str(when),
        _time(schedule["next_run_at"]),
        _time(schedule["last_run_at"]),
        str(schedule["last_error"] or ""),
    ]


def _shown(name: str, value: Any) -> str:
    return _time(value) if name.endswith("_at") else str("-" if value is None else value)


def _time(at_s: Any) -> str:
    """Return a time in UTC; `-` for none."""
    if not isinstance(at_s, int | float):
        return "-"
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"


def _advice(error: RequestRefused) -> str:
    if error.code == "unauthorized":
        return f"{error}; set TAILRACE_KEY or --key"
    return str(error)
