"""Shares the health of the backends with the other workers, through Redis and in the background.

Each `BEAT_S`, and at once after a note, the worker writes its notes and reads the breakers and the
calls in flight of all workers. Notes are applied to the breaker that Redis has now, and stored only
if no other worker was quicker; else they are applied again. While Redis is away, the worker goes by
its own notes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from shared.backends.board import (
    Busy,
    change_breaker,
    decode_breaker,
    read_view,
    withdraw_busy,
    write_reports,
)
from shared.backends.breaker import Breaker
from shared.backends.notes import Note, apply
from shared.errors import Unavailable
from shared.redis.client import Client
from shared.redis.scripts import Scripts
from workers.health.health import BackendHealth

log = logging.getLogger(__name__)

BEAT_S = 0.5
BEATS_APART_S = 0.02  # a burst of notes is written together
REPORT_S = 2.0
TRIES_MAX = 8  # to store a breaker that other workers change, too; then at the next beat
NOTES_MAX = 100  # of one backend, while Redis is away
TRIAL_UNUSED_S = 5.0  # a trial that the worker asked for in advance, and has no prompt for


class Sharing:
    """The sharing of one worker.

    Args:
        worker: its name.
    """

    def __init__(self, health: BackendHealth, scripts: Scripts, worker: str) -> None:
        self._health = health
        self._redis: Client = scripts.redis
        self._scripts = scripts
        self._worker = worker
        self._pending: dict[str, list[Note]] = {}
        self._wanted: set[str] = set()
        self._unused: dict[str, float] = {}  # a trial in advance -> when it is returned
        self._seen: dict[str, bytes] = {}  # the breakers as they are stored
        self._wake = asyncio.Event()
        self._redis_ms, self._read_s = 0, 0.0  # Redis's clock at the last read, and when that was
        self._reported_s = -REPORT_S
        health.sharer = self
        health.now_ms = lambda: self.now_ms()

    def now_ms(self) -> int:
        """Return Redis's clock, ms; before the first read, that of this machine."""
        if not self._redis_ms:
            return time.time_ns() // 1_000_000
        return self._redis_ms + round((time.monotonic() - self._read_s) * 1000)

    def note(self, backend: str, note: Note) -> None:
        """See `Sharer.note`."""
        notes = self._pending.setdefault(backend, [])
        notes.append(note)
        del notes[:-NOTES_MAX]
        self._wake.set()

    def want_trial(self, backend: str) -> None:
        """See `Sharer.want_trial`."""
        self._wanted.add(backend)
        self._wake.set()

    async def claim_trial(self, backend: str) -> bool:
        """See `Sharer.claim_trial`. While Redis is away no worker gets a trial."""
        with suppress(Unavailable):
            return await self._claim(backend)
        return False

    async def run(self) -> None:
        """Share until cancelled."""
        while True:
            with suppress(Unavailable):  # the other loops of the worker report it
                await self.beat()
            await asyncio.sleep(BEATS_APART_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S * random.uniform(0.8, 1.2)):
                    await self._wake.wait()

    async def withdraw(self) -> None:
        """Delete what this worker has told, because it ends.

        Raises:
            Unavailable: Redis did not answer in time; the others forget it soon.
        """
        await withdraw_busy(self._redis, self._worker)

    async def beat(self) -> None:
        """Write the notes, and read what all workers know.

        Raises:
            Unavailable: Redis did not answer in time. What was not written is written later.
        """
        self._wake.clear()
        for backend in list(self._pending):
            await self._write(backend)
        await self._read()
        await self._prepare_trials()
        now_s = time.monotonic()
        if now_s - self._reported_s >= REPORT_S:
            self._reported_s = now_s
            reports = self._health.own_reports()
            await write_reports(self._redis, self._worker, reports, self.now_ms())

    async def _read(self) -> None:
        own_ms = self.now_ms() if self._redis_ms else 0
        view = await read_view(self._redis, self._worker, self._health.own_busy(), now_ms=own_ms)
        self._redis_ms, self._read_s = view.now_ms, time.monotonic()
        for backend in self._health.backends:
            raw = view.breakers.get(backend, b"")
            if raw != self._seen.get(backend, b"") and backend not in self._pending:
                self._learn(backend, raw)
        self._health.learn_others(_by_backend(view.busy, self._worker))

    async def _write(self, backend: str) -> None:
        """Apply the notes of a backend to its breaker in Redis."""
        notes = self._pending[backend]
        count = len(notes)
        health = self._health
        for _ in range(TRIES_MAX):
            seen = self._seen.get(backend, b"")
            changed = apply(
                decode_breaker(seen), notes[:count], self.now_ms(), health.times,
                jitter=health.chance(),
            )  # fmt: skip
            is_stored, present = await self._store(backend, seen, changed)
            if is_stored:
                break
        else:
            return
        del notes[:count]
        if not notes:
            del self._pending[backend]
            self._learn(backend, present)

    async def _claim(self, backend: str) -> bool:
        for _ in range(TRIES_MAX):
            seen = self._seen.get(backend, b"")
            now_ms, times = self.now_ms(), self._health.times
            present = decode_breaker(seen).expired(now_ms, times, jitter=self._health.chance())
            tried = present.tried(now_ms, times)
            is_stored, stored = await self._store(backend, seen, tried or present)
            if is_stored and tried is not None:
                self._health.grant_trial(backend, tried)
                return True
            self._learn(backend, stored)
            if is_stored:
                return False
        return False

    async def _store(self, backend: str, seen: bytes, breaker: Breaker) -> tuple[bool, bytes]:
        if breaker == decode_breaker(seen):
            return True, seen
        is_stored, present = await change_breaker(self._scripts, backend, seen, breaker)
        self._seen[backend] = present
        if is_stored:
            _log_change(backend, decode_breaker(seen), breaker)
        return is_stored, present

    def _learn(self, backend: str, raw: bytes) -> None:
        self._seen[backend] = raw
        self._health.learn_breaker(backend, decode_breaker(raw))

    async def _prepare_trials(self) -> None:
        """Take the trials that were asked for in advance, and return those that nobody used."""
        wanted, self._wanted = self._wanted, set()
        now_s = time.monotonic()
        for backend in wanted:
            if await self._claim(backend):
                self._unused[backend] = now_s + TRIAL_UNUSED_S
        for backend in [name for name, until_s in self._unused.items() if until_s <= now_s]:
            del self._unused[backend]
            self._health.return_trial(backend)


def _log_change(backend: str, before: Breaker, after: Breaker) -> None:
    """Tell the operator, once for all workers, that a backend is asked no more, or again."""
    if before.state == "closed" and after.state == "open":
        log.warning("backend not asked", extra={"backend": backend, "reason": after.reason})
    elif before.state != "closed" and after.state == "closed":
        log.info("backend asked again", extra={"backend": backend})


def _by_backend(busy: Mapping[str, Mapping[str, Busy]], but: str) -> dict[str, Sequence[Busy]]:
    """Return what the workers told by backend, without the worker `but`."""
    found: dict[str, list[Busy]] = {}
    for worker, backends in busy.items():
        if worker != but:
            for name, one in backends.items():
                found.setdefault(name, []).append(one)
    return dict(found)
