"""`tailrace bench`: measures the response times of a deployment from the client's side.

Sends prompts to the address that clients use, reads each stream to its end, and checks that event
ids have no gap and no repeat. Prints the times to the first token, between pieces, and to the end
of the answer. A broken connection is resumed at its cursor and counted. The prompts go to the
models of the deployment and cost what they cost there.

`make bench` runs the project's own benchmarks beside other systems (docs/performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cli.client.batch_progress import ProgressBar
from cli.client.client import (
    RESPONSE_S,
    Members,
    RequestRefused,
    ServerUnreachable,
    no_server,
)
from cli.client.exit_code import EXIT_FAILED, EXIT_OK
from cli.client.terminal import complain, run_client, say
from cli.client.transfer import TransferClient, TransientError, check, describe
from shared.config.settings import Settings

PROMPTS_MAX = 100_000
AT_ONCE_MAX = 2_000
ERRORS_SHOWN = 5
SHOWN_AFTER_S = 1.0  # the bar, on a terminal
TEXT_EVENTS = ("token", "reasoning", "tool_call")
QUANTILES = (0.5, 0.95, 0.99, 1.0)


@dataclass(slots=True)
class Measurement:
    """The measured answer to one prompt. Times are monotonic, in seconds; 0: has not happened.

    Attributes:
        gaps_s: the pauses between pieces.
        breaks: the number of resumed connections.
        wrong: why the answer is not complete or not in order; "" if it is.
    """

    asked_s: float
    first_s: float = 0.0
    ended_s: float = 0.0
    pieces: int = 0
    bytes: int = 0
    gaps_s: list[float] = field(default_factory=list)
    breaks: int = 0
    wrong: str = ""
    _seq: int = 0
    _last_s: float = 0.0

    def take(self, event: Members, now_s: float) -> None:
        """Note an event and check its order."""
        seq = int(event["id"].rpartition("-")[2])
        if event["type"] == "reset" and seq == 0:
            self._seq = 0  # the log follows again from its start
            return
        # A joined event carries the id of its last piece, so only text may skip a seq.
        is_next = seq == self._seq + 1 or (seq > self._seq and event["type"] in TEXT_EVENTS)
        if not is_next and seq:  # the id 0-0 is an end that is in no log
            self.wrong = self.wrong or f"event {event['id']} after seq {self._seq}"
        self._seq = seq
        if event["type"] in TEXT_EVENTS:
            self._take_piece(event, now_s)
        if event["type"] == "end":
            self.ended_s = now_s
            if event["status"] != "completed":
                error = event.get("error") or {}
                self.wrong = self.wrong or f"{event['status']}: {error.get('code', '')}"

    def _take_piece(self, event: Members, now_s: float) -> None:
        if self.first_s:
            self.gaps_s.append(now_s - self._last_s)
        else:
            self.first_s = now_s
        self._last_s = now_s
        self.pieces += 1
        self.bytes += len(str(event.get("text", "")).encode())


class BenchClient(TransferClient):
    """A client that sends a prompt and reads the stream in one request."""

    async def ask(self, body: dict[str, Any], measurement: Measurement) -> None:
        """Send a prompt and read its events to the end. Resumes when the connection breaks.

        Raises:
            RequestRefused: the server did not accept the prompt.
            ServerUnreachable: no server listens, or none answered for too long.
        """
        generation_id, cursor = "", ""
        try:
            async for found in self._converse(body):
                if isinstance(found, str):
                    generation_id = found
                    continue
                cursor = found["id"]
                measurement.take(found, time.monotonic())
        except TransientError as exc:
            if not generation_id:
                raise RequestRefused(503, "unavailable", str(exc)) from exc
            measurement.breaks += 1
            async for event in self.follow(generation_id, cursor):
                measurement.take(event, time.monotonic())

    async def _converse(self, body: dict[str, Any]) -> AsyncIterator[Members | str]:
        """Yield the generation's id, then its events.

        Raises:
            TransientError: the request failed, or the stream stopped before its end.
            RequestRefused: the server did not accept the prompt.
            ServerUnreachable: no server listens.
        """
        headers = {"Accept": "application/x-ndjson", "Idempotency-Key": secrets.token_urlsafe(16)}
        url = f"{self.url}/v1/generations"
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                async with asyncio.timeout(RESPONSE_S):
                    await check(response)
                yield response.headers["x-generation-id"]
                async for line in response.content:
                    if not line.endswith(b"\n"):
                        break
                    if line.strip():
                        event = json.loads(line)
                        yield event
                        if event["type"] == "end":
                            return
        except aiohttp.ClientConnectorError as exc:
            raise ServerUnreachable(no_server(self.url)) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise TransientError(describe(exc)) from exc
        raise TransientError("the stream stopped before its end")


def bench(settings: Settings, args: argparse.Namespace) -> int:
    """Send the prompts, measure, and print the results.

    Returns:
        the exit code. 0: all answers were complete; 1: some were not; 2: no prompt could be sent.
    """
    for name, value, value_max in (
        ("--prompts", args.prompts, PROMPTS_MAX),
        ("--at-once", args.at_once, AT_ONCE_MAX),
    ):
        if not 1 <= value <= value_max:
            return complain(f"{name} must be from 1 to {value_max}, got {value}")
    body = {"prompt": args.prompt, "model": args.model or None, "on_disconnect": "cancel"}
    body |= {"params": {"max_tokens": args.max_tokens}} if args.max_tokens else {}
    client = BenchClient(settings.url, settings.key)
    return run_client(client, lambda opened: _bench(opened, args, body), _advice)


async def _bench(client: BenchClient, args: argparse.Namespace, body: dict[str, Any]) -> int:
    began_s = time.monotonic()
    measurements: list[Measurement] = []
    prompts = iter(range(args.prompts))
    bar, numbers = ProgressBar(sys.stderr), itertools.count(1)

    async def ask_in_turn() -> None:
        for _ in prompts:
            measurement = Measurement(time.monotonic())
            measurements.append(measurement)
            try:
                await client.ask(body, measurement)
            except RequestRefused as exc:
                if len(measurements) <= args.at_once:
                    raise  # one of the first prompts: the key or the model is wrong
                measurement.wrong = f"{exc.status}: {exc}"
            ended = next(numbers)
            if sys.stderr.isatty() and time.monotonic() - began_s > SHOWN_AFTER_S:
                bar.show("answers", ended, args.prompts)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(args.at_once, args.prompts)):
                tasks.create_task(ask_in_turn())
    except* (RequestRefused, ServerUnreachable) as group:
        raise group.exceptions[0] from None
    took_s = time.monotonic() - began_s
    bar.close()
    figures = summary(measurements, took_s)
    if args.json:
        print(json.dumps(figures, indent=1))
    else:
        print(f"{args.prompts} prompts, {args.at_once} at once, at {client.url}")
        print("\n".join(lines_of(figures)))
    for measurement in [each for each in measurements if each.wrong][:ERRORS_SHOWN]:
        say(f"wrong: {measurement.wrong}")
    return EXIT_FAILED if figures["wrong"] else EXIT_OK


def summary(measurements: Sequence[Measurement], took_s: float) -> dict[str, Any]:
    """Return the results: counts, rates per second, and quantiles of the times, ms."""
    good = [each for each in measurements if not each.wrong and each.ended_s]
    firsts = [each.first_s - each.asked_s for each in good if each.first_s]
    return {
        "answers": len(good),
        "wrong": len(measurements) - len(good),
        "breaks": sum(each.breaks for each in measurements),
        "seconds": round(took_s, 3),
        "answers_per_s": round(len(good) / took_s, 2),
        "pieces_per_s": round(sum(each.pieces for each in good) / took_s, 1),
        "bytes_per_s": round(sum(each.bytes for each in good) / took_s),
        "first_token_ms": quantiles_ms(firsts),
        "between_pieces_ms": quantiles_ms([gap for each in good for gap in each.gaps_s]),
        "whole_answer_ms": quantiles_ms([each.ended_s - each.asked_s for each in good]),
    }


def quantiles_ms(times_s: Sequence[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max of some times, ms; an empty dict for no times."""
    ordered = sorted(times_s)
    names = {share: "max" if share == 1.0 else f"p{share * 100:.0f}" for share in QUANTILES}
    return {
        names[share]: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for share in (QUANTILES if ordered else ())
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """Return the results as lines for a person."""
    counts = f"{figures['answers']} complete, {figures['wrong']} wrong"
    rows = [("answers", f"{counts}, {figures['breaks']} connections resumed")]
    for name in ("first_token", "between_pieces", "whole_answer"):
        times = figures[f"{name}_ms"]
        text = "   ".join(f"{quantile} {value:,.1f} ms" for quantile, value in times.items())
        rows.append((name.replace("_", " "), text or "none"))
    rate = (
        f"{figures['answers_per_s']:,.1f} answers/s, {figures['pieces_per_s']:,.0f} pieces/s, "
        f"{figures['bytes_per_s'] / 1000:,.1f} kB/s of text"
    )
    rows.append(("rate", rate))
    return [f"{name:<16}{text}" for name, text in rows]


def _advice(exc: RequestRefused) -> str:
    if exc.status in (401, 403):
        return f"{exc}; set TAILRACE_KEY or --key"
    return str(exc)
