"""One run of a fault test: generations with careful readers on a deployment, then the audit.

    async with FaultRun(deployment) as fault_run:
        answer = await fault_run.start(demo_body(100, 40))
        await fault_run.read_to(answer, 20)
        (await fault_run.holder(answer)).kill()
        await fault_run.finish()          # waits for every reader, then audits

Most generations have two readers, which start at different nodes. The first stays at its node until
the connection breaks; the second changes node and transport. The audit adds the log and the
snapshots and asks the history checker.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from shared.redis import keys
from tests.support.client import Client
from tests.support.deliveries import Reading, Record, read_log
from tests.support.demo import expected_text
from tests.support.history import History
from tests.support.processes import Deployment, Role
from tests.support.reader import TRANSPORTS, CarefulReader
from tests.support.wait import until

DEADLINE_S = 30.0


@dataclass(slots=True)
class WatchedGeneration:
    """One generation of a run, with its readers."""

    record: Record
    readers: list[CarefulReader] = field(default_factory=list)
    tasks: list[asyncio.Task[Reading]] = field(default_factory=list)
    whole: str = ""  # the whole text of an answer that the test cancels; its text is a beginning

    @property
    def id(self) -> str:
        return self.record.generation_id

    @property
    def readings(self) -> list[Reading]:
        return self.record.readings


class FaultRun:
    """Use as an async context manager, and call `finish` in it: only `finish` checks readings."""

    def __init__(self, deployment: Deployment, *, deadline_s: float = DEADLINE_S) -> None:
        self.deployment = deployment
        self.history = History()
        self.playing: list[WatchedGeneration] = []
        self._deadline_s = deadline_s
        self._client = Client(deployment.urls)

    async def __aenter__(self) -> FaultRun:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for playing in self.playing for task in playing.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.__aexit__()

    async def start(
        self,
        body: dict[str, Any],
        *,
        transports: tuple[str, ...] = TRANSPORTS,
        hop_after: int = 7,
        readers: int = 2,
        has_text: bool = True,
        text: str | None = None,
        node: str = "",
        is_cut_short: bool = False,
    ) -> WatchedGeneration:
        """Have a prompt accepted, and start careful readers of its generation.

        Args:
            node: the URL of the node that accepts the prompt; empty: any node.
            hop_after: the events after which a reader changes its node. The first reader stays
                until its connection breaks.
            has_text: the whole text is known in advance (the demo model that completes).
            text: the whole text, if the model is not the demo.
            is_cut_short: the test cancels the answer, so the answer may be longer than the test.
        """
        begun = time.monotonic()
        generation_id = (await self._client.start(body, node=node))["id"]
        if text is None and has_text:
            text = expected_text(body, generation_id)
        known = None if is_cut_short else text
        playing = WatchedGeneration(
            self.history.accepted(generation_id, at=begun, expected_text=known)
        )
        playing.whole = text if is_cut_short and text else ""
        self.playing.append(playing)
        for n in range(readers):
            reading = Reading(f"reader {n}")
            playing.record.readings.append(reading)
            # Each reader starts at another node and transport than the reader before.
            nodes = [*self.deployment.urls[n % 2 :], *self.deployment.urls[: n % 2]]
            ways = [*transports[n % len(transports) :], *transports[: n % len(transports)]]
            reader = CarefulReader(reading, nodes, transports=ways, hop_after=hop_after if n else 0)
            playing.readers.append(reader)
            run = reader.run(generation_id, deadline_s=self._deadline_s)
            playing.tasks.append(asyncio.create_task(run))
        return playing

    async def read_to(self, playing: WatchedGeneration, events: int) -> None:
        """Return once the readers have been given so many events, each."""
        await until(
            lambda: all(reading.count >= events for reading in playing.readings),
            self._deadline_s,
            f"{events} events of {playing.id} to every reader\n{self.deployment.report()}",
        )

    async def read_on(self, playing: WatchedGeneration, events: int) -> bool:
        """Return once the readers have been given so many more, each; False: they have the end.

        For faults that make events fewer: what a worker could not write for a while is joined.
        """
        goals = [reading.count + events for reading in playing.readings]

        def is_there() -> bool:
            return all(
                reading.end is not None or reading.count >= goal
                for reading, goal in zip(playing.readings, goals, strict=True)
            )

        what = f"{events} more events of {playing.id}, or its end\n{self.deployment.report()}"
        await until(is_there, self._deadline_s, what)
        return all(reading.end is None for reading in playing.readings)

    async def read_to_one(self, reading: Reading, events: int) -> None:
        """The same for one reader."""
        await until(
            lambda: reading.count >= events,
            self._deadline_s,
            f"{events} events to {reading.reader}\n{self.deployment.report()}",
        )

    async def holder(self, playing: WatchedGeneration) -> Role:
        """The worker process that holds a generation now."""
        return await self.deployment.holder(playing.id)

    async def cancel(self, playing: WatchedGeneration, *, node: str = "") -> None:
        await self._client.cancel(playing.id, node=node)

    async def finish(self, *, bound_s: float = DEADLINE_S, is_lossless: bool = True) -> None:
        """Wait for every reader, look at every log and snapshot, and audit it all.

        Args:
            is_lossless: no reader may have seen a reset; False where Redis loses data.

        Raises:
            AssertionError: a promise was broken; the message has the roles' stderr.
        """
        for playing in self.playing:
            await asyncio.gather(*playing.tasks)
            playing.record.log = await self._dump(playing.id)
            playing.record.snapshot = await self._client.snapshot(playing.id)
        problems = self.history.check(bound_s=bound_s)
        for playing in self.playing:
            said = (playing.record.snapshot or {}).get("text")
            if playing.whole and not (said and playing.whole.startswith(said)):
                problems.append(f"{playing.id}: {said!r} is no beginning of its text")
        for playing in self.playing:
            for reader in playing.readers:
                name = f"{playing.id}: {reader.reading.reader}"
                problems += [f"{name}: {fault}" for fault in reader.faults]
                if is_lossless and reader.reading.resets:
                    problems.append(f"{name}: {reader.reading.resets} resets")
        assert not problems, "\n".join([*problems, self.deployment.report()])

    async def _dump(self, generation_id: str) -> list[Any]:
        redis = self.deployment.redis()
        try:
            entries = await redis.xrange(keys.log(generation_id))
        finally:
            await redis.aclose()
        return read_log([(entry_id, fields[b"e"]) for entry_id, fields in entries])
