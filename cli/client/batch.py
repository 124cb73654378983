"""`tailrace batch`: submit, watch, ls, results, cancel and redrive, over HTTP.

Ids and results go to standard output, messages go to standard error, so the output can be piped.
`watch` resumes when its connection breaks. A stopped `watch` does not stop the batch.
Exit codes: 0 done, 1 the batch did not complete or has no results yet, 2 the request is not
possible, 130 interrupted while watching.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.client.batch_client import BatchClient, Object
from cli.client.batch_progress import ProgressBar, megabytes, span
from cli.client.client import RequestRefused
from cli.client.exit_code import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from cli.client.terminal import complain, outcome, run_client, say, table
from cli.client.typed_name import typed_name
from shared.config.settings import Settings
from shared.text.plain_text import plain_line, plain_text

DEFAULT_ENDPOINT = "/v1/chat/completions"
FIRST_LINE_BYTES_MAX = 4_194_304
BATCHES_LISTED = 100
ERRORS_SHOWN = 10
END_STATUSES = ("completed", "failed", "expired", "cancelled")


def batch(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action in `args`; return the exit code."""
    actions: dict[str, Callable[[BatchClient], Any]] = {
        "submit": lambda client: _submit(client, args),
        "watch": lambda client: _watch(client, args.id, is_json=args.json),
        "ls": lambda client: _ls(client, is_json=args.json),
        "results": lambda client: _results(client, args),
        "cancel": lambda client: _cancel(client, args.id, is_json=args.json),
        "redrive": lambda client: _redrive(client, args),
    }
    try:
        return run_client(BatchClient(settings.url, settings.key), actions[args.action], _advice)
    except OSError as exc:
        return complain(f"{exc.filename or 'file'}: {exc.strerror or exc}")


async def _submit(client: BatchClient, args: argparse.Namespace) -> int:
    path = Path(args.file)
    size = os.path.getsize(path)  # noqa: ASYNC240 (no other task runs yet)
    endpoint = args.endpoint or endpoint_of(path)
    bar = ProgressBar(sys.stderr, megabytes)
    is_shown = sys.stderr.isatty()
    try:
        file = await client.upload(
            path, lambda count: bar.show("uploading", count, size) if is_shown else None
        )
    finally:
        bar.close()
    started = await client.create_batch(file["id"], endpoint, args.window)
    return await _report_start(client, started, args)


async def _redrive(client: BatchClient, args: argparse.Namespace) -> int:
    return await _report_start(client, await client.redrive(args.id), args)


async def _report_start(client: BatchClient, started: Object, args: argparse.Namespace) -> int:
    """Print the id of a batch; then follow the batch, or print how to.

    With --json the batch is printed: as it has started, or as it has ended if it is followed.
    """
    if args.watch and args.json:
        return await _watch(client, started["id"], is_json=True)
    print(json.dumps(started) if args.json else plain_line(started["id"]), flush=True)
    if args.watch:
        return await _watch(client, started["id"])
    if args.json:
        return EXIT_OK
    say(f"follow it: {typed_name()} batch watch {started['id']}")
    return EXIT_OK


async def _watch(client: BatchClient, batch_id: str, *, is_json: bool = False) -> int:
    """Follow a batch to its end. Ctrl-C ends only this command."""
    bar = ProgressBar(sys.stderr)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(outcome(_show(client, batch_id, bar)))
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(signal.SIGINT, following.cancel)
    bar.close()
    if following.cancelled():
        say(f"{batch_id} goes on; come back: {typed_name()} batch watch {batch_id}")
        return EXIT_INTERRUPTED
    if isinstance(following.result(), Exception):
        raise following.result()
    found = await client.batch(batch_id)
    if is_json:
        print(json.dumps(found), flush=True)
    return _summary(found)


async def _show(client: BatchClient, batch_id: str, bar: ProgressBar) -> None:
    """Show the progress until the end; return at once if the events have expired."""
    try:
        async for event in client.follow_batch(batch_id, bar.note):
            if event["type"] == "progress":
                bar.show(event["stage"], event["current"], event["total"])
    except RequestRefused as exc:
        if exc.code != "expired":
            raise


def _summary(found: Object) -> int:
    """Print how a batch has ended and what to do next; return the exit code."""
    counts, batch_id = found["request_counts"], found["id"]
    ended_at = next((found[f"{name}_at"] for name in END_STATUSES if found.get(f"{name}_at")), None)
    took = f" in {span(ended_at - found['created_at'])}" if ended_at else ""
    done = f"{counts['completed']:,} of {counts['total']:,} lines done"
    failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
    say(f"{found['status']}: {done}{failed}{took}")
    errors = (found.get("errors") or {}).get("data", [])
    for error in errors[:ERRORS_SHOWN]:
        where = f"line {error['line']}: " if error.get("line") else ""
        say(f"  {where}{error['message']}")
    if len(errors) > ERRORS_SHOWN:
        say(f"  and {len(errors) - ERRORS_SHOWN} more")
    if found.get("output_file_id"):
        say(f"results: {typed_name()} batch results {batch_id}")
    if found.get("error_file_id"):
        again = f"run them again: {typed_name()} batch redrive {batch_id}"
        say(f"failed lines: {typed_name()} batch results --errors {batch_id}; {again}")
    # A batch is completed also if each line of it has failed.
    is_in_vain = counts["total"] > 0 and counts["completed"] == 0
    return EXIT_OK if found["status"] == "completed" and not is_in_vain else EXIT_FAILED


async def _ls(client: BatchClient, *, is_json: bool = False) -> int:
    page = await client.batches(BATCHES_LISTED)
    if is_json:
        print(json.dumps(page))
        return EXIT_OK
    print(table(["ID", "STATUS", "ENDPOINT", "DONE", "FAILED", "AGE"], map(_row, page["data"])))
    if page["has_more"]:
        say(f"only the newest {BATCHES_LISTED} batches are listed")
    return EXIT_OK


def _row(item: Object) -> list[str]:
    counts = item["request_counts"]
    age_s = datetime.now(UTC).timestamp() - item["created_at"]
    return [
        item["id"],
        item["status"],
        item["endpoint"],
        f"{counts['completed']}/{counts['total']}",
        str(counts["failed"]),
        span(age_s),
    ]


async def _cancel(client: BatchClient, batch_id: str, *, is_json: bool = False) -> int:
    found = await client.cancel_batch(batch_id)
    print(json.dumps(found) if is_json else plain_line(f"{batch_id} {found['status']}"))
    return EXIT_OK


async def _results(client: BatchClient, args: argparse.Namespace) -> int:
    found = await client.batch(args.id)
    name = "error_file_id" if args.errors else "output_file_id"
    if not found.get(name):
        what = "no line has failed" if args.errors else "no results"
        later = "" if found["status"] in END_STATUSES else " yet"
        say(f"tailrace: {args.id} is {found['status']}: {what}{later}")
        return EXIT_FAILED
    pieces = client.content(found[name])
    if args.output:
        await _save(pieces, Path(args.output))
    else:
        await _print(pieces)
    if not args.errors and found.get("error_file_id"):
        failed = found["request_counts"]["failed"]
        say(f"{failed:,} failed lines: {typed_name()} batch results --errors {args.id}")
    return EXIT_OK


async def _print(pieces: AsyncIterator[bytes]) -> None:
    """Write a file to standard output: unchanged, but on a terminal without control characters."""
    out, decoder = sys.stdout, getincrementaldecoder("utf-8")("replace")
    is_terminal = out.isatty()
    async for piece in pieces:
        if is_terminal:
            out.write(plain_text(decoder.decode(piece)))
        else:
            out.buffer.write(piece)
    if is_terminal:
        out.write(plain_text(decoder.decode(b"", final=True)))
    out.flush()


async def _save(pieces: AsyncIterator[bytes], path: Path) -> None:
    """Write a file under a temporary name, and rename it when it is complete."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            async for piece in pieces:
                file.write(piece)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def endpoint_of(path: Path) -> str:
    """Return the endpoint in the first line of a file; the default if the line has none.

    The server refuses an invalid line, so this function need not report it.
    """
    with path.open("rb") as file:
        first = file.readline(FIRST_LINE_BYTES_MAX)
    try:
        url = json.loads(first)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return DEFAULT_ENDPOINT
    return url if isinstance(url, str) and url.startswith("/") else DEFAULT_ENDPOINT


def _advice(error: RequestRefused) -> str:
    match error.code:
        case "unauthorized":
            return f"{error}; set TAILRACE_KEY or --key"
        case "not_found":
            return f"{error}; `{typed_name()} batch ls` lists your batches"
    return str(error)
