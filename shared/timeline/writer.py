"""Writes the timelines of generations to Redis, in the background.

    note(id, moment) ──▶ bounded list ──every FLUSH_S──▶ one call of `timeline` per generation

Nothing waits for a timeline: `note` only appends to a list, and the connection is not that of the
tokens. Moments that Redis did not take, or for which the list has no room, are lost; `lost` counts
them. Invariant: a moment of a deleted generation is never written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.lifetimes import named_ms
from shared.redis import keys
from shared.redis.client import Client
from shared.redis.connections import OpenPipeline
from shared.redis.pipeline import Call
from shared.redis.scripts import Scripts
from shared.timeline.moment import Moment, encode_moment

FLUSH_S = 0.2  # between the first moment and the call that writes it
NOTED_MAX = 20_000  # moments that wait; with more, new ones are lost
# In one round trip. Redis runs the scripts of one round trip without a pause, so with more of them
# an append of another worker would wait longer.
GENERATIONS_PER_CALL = 10
MOMENTS_MAX = 500  # kept of one generation, the newest
LAST_FLUSH_S = 1.0  # for the moments of a process that stops

Noted = tuple[int, float, Moment]  # Redis's clock, ms, or 0; monotonic time, s; the moment


class TimelineWriter:
    """The moments that one process notes.

    Args:
        clock: seconds, monotonic.
        pipeline: carries the calls, and is closed by `close`; None: redis-py's pool, which takes
            five times as long for a call.

    Attributes:
        is_on: False: the setting says `off`, and `note` does nothing.
        written, lost: moments since the process started.
    """

    def __init__(
        self,
        redis: Client,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        pipeline: OpenPipeline | None = None,
    ) -> None:
        self.is_on = settings.timeline != "off"
        self.written = 0
        self.lost = 0
        self._clock = clock
        self._pipeline = pipeline
        self._scripts = Scripts(redis, pipeline)
        # Of an unfinished generation; each write sets it again. After the end the timeline expires
        # with the log.
        self._kept_ms = named_ms(settings)
        self._noted: dict[str, list[Noted]] = {}
        self._count = 0
        self._is_noted = asyncio.Event()

    def note(
        self, generation_id: str, moment: Moment, *, at_ms: int = 0, age_s: float = 0.0
    ) -> None:
        """Note a moment. It does not wait and does not fail.

        Args:
            at_ms: when it was, Redis's clock; 0: now.
            age_s: how long ago it was, if not now.
        """
        if not self.is_on:
            return
        if self._count >= NOTED_MAX:
            self.lost += 1
            return
        self._count += 1
        self._noted.setdefault(generation_id, []).append((at_ms, self._clock() - age_s, moment))
        self._is_noted.set()

    async def run(self) -> None:
        """Write what is noted until cancelled; then the caller calls `close`."""
        while True:
            await self._is_noted.wait()
            await asyncio.sleep(FLUSH_S)
            await self.flush()

    async def close(self) -> None:
        """Write the rest within `LAST_FLUSH_S`, and close the pipeline."""
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                await self.flush()
        except TimeoutError:
            self.lost += self._count
        if self._pipeline is not None:
            await self._pipeline.aclose()

    async def flush(self) -> None:
        """Write all that is noted now."""
        noted, self._noted, self._count = self._noted, {}, 0
        self._is_noted.clear()
        pairs = list(noted.items())
        for start in range(0, len(pairs), GENERATIONS_PER_CALL):
            await self._write(pairs[start : start + GENERATIONS_PER_CALL])

    async def _write(self, pairs: Sequence[tuple[str, list[Noted]]]) -> None:
        now_s = self._clock()
        calls = [self._call(generation_id, noted, now_s) for generation_id, noted in pairs]
        try:
            replies = await self._scripts.run_many("timeline", calls)
        except Unavailable:
            self.lost += sum(len(noted) for _, noted in pairs)
            return
        for (_, noted), reply in zip(pairs, replies, strict=True):
            if isinstance(reply, Exception):  # memory is full, or the slot of the keys moves
                self.lost += len(noted)
            else:
                self.written += len(noted)

    def _call(self, generation_id: str, noted: Sequence[Noted], now_s: float) -> Call:
        names = (keys.meta(generation_id), keys.log(generation_id), keys.timeline(generation_id))
        return names, [self._kept_ms, MOMENTS_MAX, *_arguments(noted, now_s)]


def _arguments(noted: Sequence[Noted], now_s: float) -> Iterator[float | bytes]:
    for at_ms, noted_s, moment in noted:
        yield at_ms or min(0.0, round((noted_s - now_s) * 1000, 3))
        yield encode_moment(moment)
