"""`tailrace bench`: how a deployment answers, seen from its clients' side.

Asks prompts through the address that clients use, reads every stream to its end, checks that ids
have no gap and no repeat, and prints what people feel: the time to the first token, the pauses
between pieces, the whole answer. A connection that breaks is taken up again at its cursor, and
counted. Costs what its prompts cost; the models are the deployment's own.

The benches of the project itself, beside other systems, are `make bench` (docs/performance.md).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from cli.client.client import ANSWER_S, Client, Event, Passing, Refused, Unreachable, check, words
from cli.client.terminal import EXIT_FAILED, EXIT_OK, complain, run_client, say
from shared.config.settings import Settings

PROMPTS_MAX = 100_000
AT_ONCE_MAX = 2_000
TEXT_EVENTS = ("token", "reasoning", "tool_call")
SHARES = (0.5, 0.95, 0.99, 1.0)


@dataclass(slots=True)
class Reading:
    """One prompt, as its client saw it. Times are monotonic, s; 0: never."""

    asked_s: float
    first_s: float = 0.0
    ended_s: float = 0.0
    pieces: int = 0
    bytes: int = 0
    gaps_s: list[float] = field(default_factory=list)  # between pieces
    breaks: int = 0  # connections that were taken up again
    wrong: str = ""  # why it is no good; empty: complete and in order
    _seq: int = 0
    _last_s: float = 0.0

    def take(self, event: Event, now_s: float) -> None:
        """Note an event, and whether it may stand here."""
        seq = int(event["id"].rpartition("-")[2])
        if event["type"] == "reset" and seq == 0:
            self._seq = 0  # what follows is all from the start
            return
        # Joined pieces carry the id of the last: a seq may be passed over only by text.
        is_next = seq == self._seq + 1 or (seq > self._seq and event["type"] in TEXT_EVENTS)
        if not is_next and seq:  # 0-0: an end that is in no log
            self.wrong = self.wrong or f"event {event['id']} after seq {self._seq}"
        self._seq = seq
        if event["type"] in TEXT_EVENTS:
            self._take_piece(event, now_s)
        if event["type"] == "end":
            self.ended_s = now_s
            if event["status"] != "completed":
                error = event.get("error") or {}
                self.wrong = self.wrong or f"{event['status']}: {error.get('code', '')}"

    def _take_piece(self, event: Event, now_s: float) -> None:
        if self.first_s:
            self.gaps_s.append(now_s - self._last_s)
        else:
            self.first_s = now_s
        self._last_s = now_s
        self.pieces += 1
        self.bytes += len(str(event.get("text", "")).encode())


class BenchClient(Client):
    """A client that asks and reads in one request."""

    async def ask(self, body: dict[str, Any], reading: Reading) -> None:
        """Ask, and read to the end, over as many connections as it takes.

        Raises:
            Refused, Unreachable: also where nobody listens any more.
        """
        generation_id, cursor = "", ""
        try:
            async for found in self._converse(body):
                if isinstance(found, str):
                    generation_id = found
                    continue
                cursor = found["id"]
                reading.take(found, time.monotonic())
        except Passing as exc:
            if not generation_id:
                raise Refused(503, "unavailable", str(exc)) from exc
            reading.breaks += 1
            async for event in self.follow(generation_id, cursor):
                reading.take(event, time.monotonic())

    async def _converse(self, body: dict[str, Any]) -> AsyncIterator[Event | str]:
        """Yield the generation's id, then its events.

        Raises:
            Passing: the stream stopped before its end.
            Refused.
        """
        headers = {"Accept": "application/x-ndjson", "Idempotency-Key": secrets.token_urlsafe(16)}
        url = f"{self.url}/v1/generations"
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                async with asyncio.timeout(ANSWER_S):
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
            raise Unreachable(f"nothing answers at {self.url}") from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise Passing(words(exc)) from exc
        raise Passing("the stream stopped before its end")


def bench(settings: Settings, args: argparse.Namespace) -> int:
    """Ask, measure, print. 0: every answer was complete; 1: not every one; 2: not to be asked."""
    for name, value, most in (
        ("--prompts", args.prompts, PROMPTS_MAX),
        ("--at-once", args.at_once, AT_ONCE_MAX),
    ):
        if not 1 <= value <= most:
            return complain(f"{name} must be from 1 to {most}, got {value}")
    body = {"prompt": args.prompt, "model": args.model or None, "on_disconnect": "cancel"}
    body |= {"params": {"max_tokens": args.max_tokens}} if args.max_tokens else {}
    client = BenchClient(settings.url, settings.key)
    return run_client(client, lambda found: _bench(found, args, body), _advice)


async def _bench(client: BenchClient, args: argparse.Namespace, body: dict[str, Any]) -> int:
    began_s = time.monotonic()
    readings: list[Reading] = []
    waiting = iter(range(args.prompts))

    async def ask_on() -> None:
        for _ in waiting:
            reading = Reading(time.monotonic())
            readings.append(reading)
            try:
                await client.ask(body, reading)
            except Refused as exc:
                if len(readings) <= args.at_once:
                    raise  # from the very first: a wrong key or model, and not a busy moment
                reading.wrong = f"{exc.status}: {exc}"

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(args.at_once, args.prompts)):
                tasks.create_task(ask_on())
    except* (Refused, Unreachable) as group:
        raise group.exceptions[0] from None
    took_s = time.monotonic() - began_s
    figures = summary(readings, took_s)
    if args.json:
        print(json.dumps(figures, indent=1))
    else:
        print(f"{args.prompts} prompts, {args.at_once} at once, at {client.url}")
        print("\n".join(lines_of(figures)))
    for reading in [one for one in readings if one.wrong][:5]:
        say(f"wrong: {reading.wrong}")
    return EXIT_FAILED if figures["wrong"] else EXIT_OK


def summary(readings: Sequence[Reading], took_s: float) -> dict[str, Any]:
    """Return the figures: counts, rates per second, and times in ms by share."""
    good = [one for one in readings if not one.wrong and one.ended_s]
    firsts = [one.first_s - one.asked_s for one in good if one.first_s]
    return {
        "answers": len(good),
        "wrong": len(readings) - len(good),
        "breaks": sum(one.breaks for one in readings),
        "seconds": round(took_s, 3),
        "answers_per_s": round(len(good) / took_s, 2),
        "pieces_per_s": round(sum(one.pieces for one in good) / took_s, 1),
        "bytes_per_s": round(sum(one.bytes for one in good) / took_s),
        "first_token_ms": shares(firsts),
        "between_pieces_ms": shares([gap for one in good for gap in one.gaps_s]),
        "whole_answer_ms": shares([one.ended_s - one.asked_s for one in good]),
    }


def shares(times_s: Sequence[float]) -> dict[str, float]:
    """Return the shares of a set of times, ms: p50, p95, p99 and the longest; empty of none."""
    ordered = sorted(times_s)
    names = {share: "max" if share == 1.0 else f"p{share * 100:.0f}" for share in SHARES}
    return {
        names[share]: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for share in (SHARES if ordered else ())
    }


def lines_of(figures: dict[str, Any]) -> list[str]:
    """Return the figures as people read them."""
    counts = f"{figures['answers']} complete, {figures['wrong']} wrong"
    rows = [("answers", f"{counts}, {figures['breaks']} connections taken up again")]
    for name in ("first_token", "between_pieces", "whole_answer"):
        times = figures[f"{name}_ms"]
        text = "   ".join(f"{share} {value:,.1f} ms" for share, value in times.items())
        rows.append((name.replace("_", " "), text or "none"))
    rate = (
        f"{figures['answers_per_s']:,.1f} answers/s, {figures['pieces_per_s']:,.0f} pieces/s, "
        f"{figures['bytes_per_s'] / 1000:,.1f} kB/s of text"
    )
    rows.append(("rate", rate))
    return [f"{name:<16}{text}" for name, text in rows]


def _advice(exc: Refused) -> str:
    if exc.status in (401, 403):
        return f"{exc}: set TAILRACE_KEY, or give --key"
    return str(exc)
