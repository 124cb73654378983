"""`tailrace usage` and `tailrace forget`: reports the usage of owners, and deletes an owner.

Exit codes: 0 done, 1 the user did not confirm, 2 the request is not possible.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cli.client.account_client import AccountClient
from cli.client.client import RequestRefused
from cli.client.exit_code import EXIT_FAILED, EXIT_OK
from cli.client.terminal import complain, run_client, say, table
from shared.config.settings import Settings
from shared.text.csv_cell import csv_cell
from shared.text.plain_text import plain_line

NUMBERS = (
    "prompts", "input_tokens", "output_tokens", "cached_tokens", "estimated_tokens", "seconds",
)  # fmt: skip


def usage(settings: Settings, args: argparse.Namespace) -> int:
    """Print a report of usage: a table, JSON or CSV."""
    client = AccountClient(settings.url, settings.key)
    return run_client(client, lambda opened: report(opened, args), _advice)


async def report(client: AccountClient, args: argparse.Namespace) -> int:
    """Ask for a report of usage and print it."""
    named = {"from": args.first, "to": args.last, "group_by": args.by, "owner": args.owner}
    rows = await client.usage({name: value for name, value in named.items() if value})
    if args.json:
        print(json.dumps({"data": rows}))
    elif args.csv:
        _print_csv(rows)
    else:
        print(_usage_table(rows))
    return EXIT_OK


def forget(settings: Settings, args: argparse.Namespace) -> int:
    """Delete everything of an owner, after a confirmation."""
    if not args.yes:
        if not sys.stdin.isatty():
            return complain(f"add --yes to delete everything of {args.owner}")
        say(f"This deletes everything of {args.owner}, for good. Type the name to go on:")
        if sys.stdin.readline().strip() != args.owner:
            say("nothing was deleted")
            return EXIT_FAILED

    client = AccountClient(settings.url, settings.key)
    return run_client(client, lambda opened: erase(opened, args), _advice)


async def erase(client: AccountClient, args: argparse.Namespace) -> int:
    """Forget an owner and print the numbers of deleted records."""
    deleted = await client.forget(args.owner, keeps_usage=args.keep_usage, on_step=_show_progress)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if args.json:
        print(json.dumps({"owner": args.owner, "deleted": dict(deleted)}))
        return EXIT_OK
    print(plain_line(f"{args.owner}: {_listed(deleted) or 'nothing was there'}"))
    return EXIT_OK


def _usage_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table with the columns that tell rows apart, and a last line with the sums."""
    names = [name for name in ("owner", "model", "day") if any(row[name] for row in rows)]
    lines = [[str(row[name] or "") for name in names] + _figures(row) for row in rows]
    total = {name: sum(row[name] for row in rows) for name in NUMBERS}
    lines.append(["total", *[""] * (len(names) - 1)][: len(names)] + _figures(total))
    heads = [*names, "prompts", "in", "out", "cached", "estimated", "seconds"]
    return table([head.upper() for head in heads], lines)


def _figures(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:,.0f}" for name in NUMBERS]


def _print_csv(rows: Sequence[dict[str, Any]]) -> None:
    columns = ("owner", "model", "day", *NUMBERS)
    writer = csv.writer(sys.stdout)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([csv_cell(row[name]) for name in columns])


def _show_progress(deleted: Counter[str]) -> None:
    if sys.stderr.isatty():
        print(f"\r{_listed(deleted)}", end="", file=sys.stderr, flush=True)


def _listed(deleted: Counter[str]) -> str:
    return ", ".join(
        kind if kind == "usage" else f"{number} {kind}" for kind, number in sorted(deleted.items())
    )


def _advice(error: RequestRefused) -> str:
    match error.code:
        case "unauthorized":
            return f"{error}; set TAILRACE_KEY or --key"
        case "forbidden":
            return f"{error}; use an operator's key"
    return str(error)
