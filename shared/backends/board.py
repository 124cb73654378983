"""What all workers know of the backends, in Redis: breakers, calls in flight, measured times.

A breaker is changed by comparing and setting, so that one of several workers gets the trial. Calls
in flight and measured times are a report of each worker, which counts while it is young.

Every coroutine here may raise `Unavailable`: Redis did not answer in time. Repeating it is safe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from shared.backends.breaker import Breaker
from shared.redis import backend_keys
from shared.redis.client import Client, translated
from shared.redis.scripts import Scripts

YOUNG_MS = 10_000  # an older report is of a worker that is gone
FORGOTTEN_MS = 60_000  # and is deleted after this time

NO_BREAKER = Breaker()


class Busy(msgspec.Struct, frozen=True, omit_defaults=True):
    """One worker at one backend, as the others need it to choose.

    Attributes:
        first_token_s, tokens_per_s: medians of the last minutes; 0: not known.
    """

    in_flight: int = 0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker measured at one backend.

    Attributes:
        slots: of the backend, by the models file of the worker; 0: any number.
        first_tokens, rates: of the last minutes: bucket (shared/console/histogram.py) -> number.
        calls, failures: since the worker started; failures by outcome.
        statuses: failures by the HTTP status of the server, as texts.
        left: what the vendor's last answer said is left, by the name of the limit.
    """

    in_flight: int = 0
    slots: int = 0
    calls: int = 0
    failures: dict[str, int] = {}
    statuses: dict[str, int] = {}
    first_tokens: dict[int, int] = {}
    rates: dict[int, int] = {}
    left: dict[str, int] = {}


class _Sheet(msgspec.Struct, frozen=True):
    at_ms: int
    backends: dict[str, Busy]


class _ReportSheet(msgspec.Struct, frozen=True):
    at_ms: int
    backends: dict[str, Report]


_breakers = msgspec.json.Decoder(Breaker)
_sheets = msgspec.json.Decoder(_Sheet)
_report_sheets = msgspec.json.Decoder(_ReportSheet)


class View(NamedTuple):
    """What one read found.

    Attributes:
        now_ms: Redis's clock.
        breakers: by backend, each as it is stored.
        busy: by worker, without the workers that are gone.
    """

    now_ms: int
    breakers: Mapping[str, bytes]
    busy: Mapping[str, Mapping[str, Busy]]


async def read_view(redis: Client, worker: str, own: Mapping[str, Busy], *, now_ms: int) -> View:
    """Tell what `worker` has in flight, and read what all workers know, in one round trip.

    Args:
        now_ms: Redis's clock as the worker knows it; 0: not yet, so the worker tells nothing.
    """
    sheet: Any = msgspec.json.encode(_Sheet(now_ms, dict(own)))
    with translated():
        pipeline = redis.pipeline(transaction=False)
        if now_ms:
            pipeline.hset(backend_keys.BUSY, worker, sheet)
        pipeline.time()
        pipeline.hgetall(backend_keys.BREAKERS)
        pipeline.hgetall(backend_keys.BUSY)
        (seconds, micros), breakers, sheets = (await pipeline.execute())[-3:]
    now_ms = seconds * 1000 + micros // 1000
    young, old = _young(sheets, _sheets, now_ms)
    if old:
        with translated():
            await redis.hdel(backend_keys.BUSY, *old)  # type: ignore[misc]
    found = {name.decode(): raw for name, raw in breakers.items()}
    return View(now_ms, found, {name: sheet.backends for name, sheet in young.items()})


def decode_breaker(raw: bytes | None) -> Breaker:
    """Return a stored breaker; a closed one if there is none, or one of a newer version."""
    if not raw:
        return NO_BREAKER
    try:
        return _breakers.decode(raw)
    except msgspec.MsgspecError:
        return NO_BREAKER


async def change_breaker(
    scripts: Scripts, backend: str, seen: bytes, breaker: Breaker
) -> tuple[bool, bytes]:
    """Store a breaker if the stored one is still `seen`; empty: none.

    Returns:
        whether it was stored, and the breaker that is stored now.
    """
    args = [backend, seen, msgspec.json.encode(breaker)]
    is_stored, present = await scripts.run("breaker", [backend_keys.BREAKERS], args)
    return bool(is_stored), present


async def withdraw_busy(redis: Client, worker: str) -> None:
    """Delete what a worker has told."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.hdel(backend_keys.BUSY, worker)
        pipeline.hdel(backend_keys.REPORTS, worker)
        await pipeline.execute()


async def write_reports(
    redis: Client, worker: str, reports: Mapping[str, Report], now_ms: int
) -> None:
    """Store what a worker measured."""
    sheet: Any = msgspec.json.encode(_ReportSheet(now_ms, dict(reports)))
    with translated():
        await redis.hset(backend_keys.REPORTS, worker, sheet)  # type: ignore[misc]


async def read_board(redis: Client) -> tuple[int, dict[str, Breaker], list[Mapping[str, Report]]]:
    """Return Redis's clock, ms, the breakers by backend, and the reports of the living workers."""
    with translated():
        pipeline = redis.pipeline(transaction=False)
        pipeline.time()
        pipeline.hgetall(backend_keys.BREAKERS)
        pipeline.hgetall(backend_keys.REPORTS)
        (seconds, micros), breakers, sheets = await pipeline.execute()
    now_ms = seconds * 1000 + micros // 1000
    young, _ = _young(sheets, _report_sheets, now_ms)
    found = {name.decode(): decode_breaker(raw) for name, raw in breakers.items()}
    return now_ms, found, [sheet.backends for sheet in young.values()]


async def take_probe(redis: Client, backend: str, for_ms: int) -> bool:
    """Whether the caller probes a backend; no other worker does in the next `for_ms` ms."""
    with translated():
        key = backend_keys.probe(backend)
        return bool(await redis.set(key, b"1", nx=True, px=for_ms))


def _young(
    sheets: Mapping[bytes, bytes], decoder: msgspec.json.Decoder[Any], now_ms: int
) -> tuple[dict[str, Any], Sequence[Any]]:
    """Return the sheets of living workers by worker, and the names of those to delete."""
    young: dict[str, Any] = {}
    old: list[Any] = []
    for worker, raw in sheets.items():
        with suppress(msgspec.MsgspecError):  # a newer version wrote this one
            sheet = decoder.decode(raw)
            if sheet.at_ms > now_ms - YOUNG_MS:
                young[worker.decode()] = sheet
            elif sheet.at_ms < now_ms - FORGOTTEN_MS:
                old.append(worker)
    return young, old
