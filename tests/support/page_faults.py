"""Reads one answer of `tailrace up` while the faults of its chat page are done to it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

from tests.support.deliveries import Reading
from tests.support.demo import demo_body
from tests.support.history import History
from tests.support.local_up import LocalUp
from tests.support.reader import CarefulReader
from tests.support.wait import until

LEASE_S = "0.8"
SOON_S = 40.0
PROMPT = "How does a stream survive?"


def attempt_of(reading: Reading) -> int:
    return int(reading.cursor.partition("-")[0] or 0)


async def read_through(
    up: LocalUp, faults: Sequence[str], *, tokens: int, per_s: int
) -> tuple[Reading, str]:
    """Read one answer; do each fault when the answer has gone on for a second of text.

    The supervisor refuses a fault that follows another one within `PAUSE_S`, half a second.

    Args:
        tokens, per_s: the answer, which must outlast the faults also on a slow machine.

    Returns:
        the reading, and the texts of the notes.
    """
    history = History()
    async with aiohttp.ClientSession() as http:
        body = demo_body(tokens, per_s, PROMPT)
        async with http.post(f"{up.url}/v1/generations", json=body) as answer:
            generation_id = (await answer.json())["id"]
        record = history.accepted(generation_id, at=time.monotonic())
        reading = Reading("page")
        record.readings.append(reading)
        reader = CarefulReader(reading, [up.url], transports=("sse", "ws"))
        async with asyncio.TaskGroup() as group:
            group.create_task(reader.run(generation_id, deadline_s=2 * SOON_S))
            for fault in faults:
                before = reading.count
                goes_on = lambda n=before: reading.count > n + per_s  # noqa: E731
                await until(goes_on, SOON_S, f"text before {fault}")
                attempt = attempt_of(reading)
                await up.break_it(http, fault, generation_id)
                if fault in ("worker", "freeze"):
                    rises = lambda n=attempt: attempt_of(reading) > n  # noqa: E731
                    await until(rises, SOON_S, f"another attempt after {fault}")

        async def known_text() -> dict[str, Any] | None:
            async with http.get(f"{up.url}/v1/break/{generation_id}") as answer:
                return await answer.json() if answer.status == 200 else None

        # A server that was killed last may not be back yet.
        known = await until(known_text, SOON_S, "the checksum of the text")
        assert known is not None
        notes = "\n".join(note["text"] for note in (await up.state(http))["notes"])
    assert history.check(bound_s=2 * SOON_S) == []
    text = reading.text
    assert known["characters"] == len(text)
    assert known["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    return reading, notes
