"""A worker: reads queue entries, runs them concurrently, renews their leases, and drains.

One TaskGroup owns the runs, and *dispatch* reads the entries that may start now. A second TaskGroup
around it owns the loops: the renewal renews all leases (workers/renewal.py); *sweep* claims entries
of silent workers and moves delayed entries to the lane `resume`; the appender writes; the cancel
listener stops runs.

Invariant: this module never decides who may write a generation; the scripts in Redis do.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from shared.config import logs
from shared.config.models import Model, can_serve
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.store import Store
from shared.metrics.answers import NO_METRICS, AnswerMetrics
from shared.queue.lanes import Delivery, LaneEntry, Queue, batch_slots_max
from shared.queue.partitions import agree, partitions_of
from shared.queue.presence import Presence, withdraw
from shared.queue.turns import advance
from shared.redis import keys, server_check
from shared.redis.client import REDIS_ANSWER_S, Client
from shared.redis.connections import open_pipeline
from shared.redis.shards import is_partly_away
from shared.timeline.writer import TimelineWriter
from workers.arrivals import Arrivals, own_partitions
from workers.backends import Backend
from workers.hand_over import hand_over
from workers.health.access import BackendAccess
from workers.notices import receive_notices
from workers.parts import COUNTERS, Takeover, WorkerParts
from workers.renewal import Renewal
from workers.report import presence_of
from workers.run import Run
from workers.slots import free_slots, places_to_wait_on, rounds
from workers.takeover.verdicts import Verdicts
from workers.writing.sharded_appender import open_appender

log = logging.getLogger(__name__)

BLOCK_MS = 500  # of a blocking read; an idle worker notices a drain after at most this time
SHORT_BLOCK_MS = 50  # when the blocking reads cover only some of the lanes
LOOK_MS = 250  # when they cover only some of the partitions: so often the worker reads the others
REDIS_RETRY_PAUSE_S = 0.25  # mean pause before Redis is tried again


class Worker:
    """One worker process.

    Args:
        redis: for rare calls only.
        name: unique in the deployment; the consumer name in the queue.

    Attributes:
        runs: the running entries, by generation id.
        is_draining: no new entry is started.
    """

    def __init__(
        self,
        redis: Client,
        settings: Settings,
        *,
        name: str,
        models: Mapping[str, Model],
        backends: Mapping[str, Backend],
        metrics: AnswerMetrics = NO_METRICS,
    ) -> None:
        self.redis = redis
        self.settings = settings
        # A blocking read delays every call behind it, so it has a connection of its own.
        self._calls = open_pipeline(settings.redis_url, answer_s=REDIS_ANSWER_S)
        self._timeline_calls = open_pipeline(settings.redis_url, answer_s=REDIS_ANSWER_S)
        partitions = partitions_of(settings)
        own = own_partitions(partitions.tags, name)
        self._blocking_reads = {
            tag: open_pipeline(settings.redis_url, answer_s=BLOCK_MS / 1000 + 2.0) for tag in own
        }
        self.store = Store(redis, settings, self._calls)
        parts = (redis, name, self._calls, self._blocking_reads)
        counts_usage = bool(settings.usage_days)
        self.queue = Queue(*parts, partitions=partitions, counts_usage=counts_usage)
        self._arrivals = Arrivals(self.queue, own, lambda work: self._tasks.create_task(work))
        self.appender = open_appender(self.store, self._calls)
        self.counters = dict.fromkeys(COUNTERS, 0.0)
        self.verdicts = Verdicts(redis, models)
        self.access = BackendAccess(self.queue, models, settings)
        self.parts = WorkerParts(
            worker=name,
            settings=settings,
            store=self.store,
            queue=self.queue,
            appender=self.appender,
            models=models,
            backends=backends,
            verdicts=self.verdicts,
            health=self.access.health,
            clock=time.monotonic,
            takeover=lambda: self._takeover,
            counters=self.counters,
            timeline=TimelineWriter(redis, settings, pipeline=self._timeline_calls),
            metrics=metrics,
            spawn=lambda work: self._tasks.create_task(work),
        )
        self.runs: dict[str, Run] = {}
        self.is_draining = False
        self._takeover = Takeover()
        # `Takeover.quiet_until_ms` by the local monotonic clock: before this, claim nothing.
        self._quiet_until_s = 0.0
        self._is_away = True  # Redis does not answer; also before the first connection
        self._was_connected = False
        # Entries to start again later, because another worker holds the generation:
        # (stream, entry id) -> (when, monotonic seconds; the entry).
        self._held: dict[tuple[str, bytes], tuple[float, Delivery]] = {}
        self._slot_freed = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    # Start and stop

    async def serve(self, ready: asyncio.Event) -> None:
        """Work until `drain()`; then finish or hand over the running generations, and return.

        Sets `ready` after Redis has answered for the first time.

        Raises:
            ConfigurationError: this Redis server cannot be used.
        """
        try:
            await self._serve(ready)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connections that `serve` opened."""
        own = (self._calls, self._timeline_calls, *self._blocking_reads.values())
        for pipeline in own:
            await pipeline.aclose()

    async def _serve(self, ready: asyncio.Event) -> None:
        await self._connect()
        await self.verdicts.open()
        ready.set()
        async with asyncio.TaskGroup() as services:
            bell = keys.audio_bell(self.parts.worker)
            notices = {keys.CANCEL: self._on_cancel, bell: self.parts.bells.ring}
            listen = receive_notices(self.redis, notices)
            renew_by = (self.parts, self.runs, self._presence, self._note_away)
            renewal = Renewal(*renew_by, drain=self.drain)
            loops = (self.appender.run(), renewal.run(), self._sweep(), self.verdicts.follow())
            background = (self.parts.timeline.run(), *self.access.loops(), listen)
            own = [services.create_task(loop) for loop in (*loops, *background)]
            async with asyncio.TaskGroup() as self._tasks:
                try:
                    await self._dispatch()
                    await hand_over(self.runs, self._slot_freed, self.settings.drain_s)
                finally:
                    self.is_draining = True  # also after a cancellation: the sweep starts nothing
            for task in own:
                task.cancel()
        await self.parts.timeline.close()
        with suppress(Unavailable):  # the presence record soon counts as old
            await withdraw(self.redis, self.parts.worker)
            await self.access.withdraw()

    @property
    def is_connected(self) -> bool:
        """Whether Redis has answered at least once; before that there is nothing to drain."""
        return self._was_connected

    def drain(self) -> None:
        """Start no new entry; `serve` returns when all runs have ended or are handed over."""
        self.is_draining = True
        self._slot_freed.set()

    async def _connect(self) -> None:
        while True:
            try:
                await server_check.check_server(self.redis)
                await agree(self.redis, self.settings)
                await self.queue.ensure_groups()
                await self._note_contact()
                return
            except Unavailable as exc:
                log.warning("redis away", extra={"reason": str(exc)})
                await asyncio.sleep(REDIS_RETRY_PAUSE_S * random.uniform(1, 3))

    async def _note_contact(self) -> None:
        """If Redis was away, take over nothing for one lease: living holders may restore first."""
        if self._is_away:
            now_ms = await self.store.now_ms()
            until_ms = now_ms + self.store.lease_ms
            # The first connection is not an outage: a lapsed lease counts as a failure then.
            self._takeover = Takeover(until_ms, until_ms if self._was_connected else 0)
            self._quiet_until_s = time.monotonic() + self.settings.lease_s
            self._is_away, self._was_connected = False, True

    async def _pause_away(self, exc: Unavailable) -> None:
        if not self._is_away:
            log.warning("redis away", extra={"reason": str(exc)})
        self._note_away()
        await asyncio.sleep(REDIS_RETRY_PAUSE_S * random.uniform(0.5, 1.5))

    def _note_away(self) -> None:
        # Of a cluster with some shards away, each generation waits by the rule of its own shard.
        if not is_partly_away(self.redis):
            self._is_away = True

    def _presence(self, now_ms: int) -> Presence:
        return presence_of(self.parts, len(self.runs), now_ms, is_draining=self.is_draining)

    # Starting entries

    async def _dispatch(self) -> None:
        is_empty = False
        while not self.is_draining:
            try:
                await self._note_contact()
                if is_empty or not await self._take():
                    is_empty = await self._wait()
            except Unavailable as exc:
                await self._pause_away(exc)
        for delivery in await self._arrivals.close():
            with suppress(Unavailable):  # another worker claims it when its lease is over
                await self._start_all([delivery])

    def _load(self) -> tuple[int, int, int]:
        """Return (slots, running entries, running batch entries)."""
        batch = sum(run.ticket.priority == "batch" for run in self.runs.values())
        return self.settings.worker_slots, len(self.runs), batch

    def _reserved_load(self) -> tuple[int, int, int]:
        """Return `_load`, with the entries that open reads may still return."""
        slots, running, batch = self._load()
        entries, of_batch = self._arrivals.reserved
        return slots, running + entries, batch + of_batch

    async def _take(self) -> bool:
        """Start entries of the first lane that has any; return whether there were any."""
        for lane, count in rounds(*self._reserved_load()):
            deliveries = await self.queue.read(lane, count)
            if deliveries:
                await self._start_all(deliveries)
                return True
        return False

    async def _start_all(self, deliveries: Sequence[Delivery]) -> None:
        """Start entries that were read, and those that their owners then put on the lane."""
        while deliveries:
            for delivery in deliveries:
                await self._start(delivery)
            await asyncio.sleep(0)  # the runs begin first, so that no turn delays them
            free, lane = free_slots(*self._reserved_load()), deliveries[-1].lane
            is_more = await advance(self.queue.scripts, deliveries, free) and not self.is_draining
            deliveries = await self.queue.read(lane, free[lane]) if is_more and free[lane] else ()

    async def _wait(self) -> bool:
        """Wait for the next entry and start it; return whether the lanes are probably empty.

        If the blocking read had to wait for the entry, it was the only one. Then the next call
        waits again; reading all lanes after each entry would cost four times as much as a begin.
        """
        arrivals = self._arrivals
        places = places_to_wait_on(arrivals.unread(), *self._reserved_load())
        if not places and not arrivals.reserved[0]:
            self._slot_freed.clear()
            if len(self.runs) >= self.settings.worker_slots and not self.is_draining:
                await self._slot_freed.wait()
            return False
        arrivals.open(places, self._wait_ms(places))
        is_every_lane = arrivals.covers_all
        deliveries, has_waited = await arrivals.next()
        await self._start_all(deliveries)
        return is_every_lane and has_waited

    def _wait_ms(self, places: Mapping[str, Sequence[str]]) -> int:
        partitions = self.queue.partitions.tags
        if len(partitions) > len(self._arrivals.tags):
            return LOOK_MS
        streams = self._arrivals.reserved[0] + sum(map(len, places.values()))
        return BLOCK_MS if streams == len(partitions) * len(keys.LANES) else SHORT_BLOCK_MS

    async def _start(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
        if ticket is None or not can_serve(self.parts.models, ticket.model):
            await self._leave_to_others(delivery)
            return
        if ticket.id in self.runs:
            await self._handle_duplicate(delivery, self.runs[ticket.id])
            return
        if self.is_draining or len(self.runs) >= self.settings.worker_slots:
            # Read just before the drain, or while claimed entries took the last slots: another
            # worker can start it at once.
            await self._put_back(delivery, ticket, "resume")
            return
        if ticket.priority == "batch":
            slots, _, batch = self._load()
            if batch >= batch_slots_max(slots):
                # `resume` holds entries of both priorities and is read without a filter. A batch
                # entry beyond the batch share moves to the batch lane.
                await self._put_back(delivery, ticket, "batch")
                return
        run = Run(self.parts, delivery, ticket)
        self.runs[ticket.id] = run
        self._tasks.create_task(self._run(run))

    async def _leave_to_others(self, delivery: Delivery) -> None:
        """Leave an entry of a newer version, or for a model of other workers: they claim it.

        If there is no such worker, a claimed entry goes when its generation has ended or is absent.
        """
        if delivery.is_claimed and delivery.ticket is not None:
            (top,) = await self.store.known_tops([delivery.ticket.id])
            if top is not None and top.status not in ("queued", "running"):
                await self.queue.acknowledge(delivery)
                return
        log.warning("entry left for others", extra={"entry": str(delivery.entry_id)})

    async def _handle_duplicate(self, delivery: Delivery, run: Run) -> None:
        """Acknowledge a second entry for a generation that runs here.

        Keeps the entry of the run itself, which may be read or claimed again.
        """
        if (delivery.stream, delivery.entry_id) == (run.delivery.stream, run.delivery.entry_id):
            return
        if run.is_giving_back:  # the run may have put back this entry: nothing else starts it again
            self._start_later(delivery, time.monotonic())
            return
        await self.queue.acknowledge(delivery)

    async def _put_back(self, delivery: Delivery, ticket: LaneEntry, lane: str) -> None:
        await self.queue.put_back([ticket], lane)
        await self.queue.acknowledge(delivery)

    async def _run(self, run: Run) -> None:
        logs.generation_id.set(run.id)
        try:
            await self.access.execute(run)
        except Exception:  # the boundary of a run: an error in one must not stop the others
            log.exception("run failed", extra={"generation_id": run.id})
        finally:
            del self.runs[run.id]
            self._slot_freed.set()
        if run.held_ms is not None:
            self._start_later(run.delivery, time.monotonic() + run.held_ms / 1000)

    def _start_later(self, delivery: Delivery, at_s: float) -> None:
        # One record for each entry, even if the entry is claimed several times before `at_s`.
        self._held[delivery.stream, delivery.entry_id] = at_s, delivery

    # Entries of silent workers

    async def _sweep(self) -> None:
        pause_s = min(self.settings.lease_s / 8, 0.5)
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.6, 1.4))
            if self.is_draining:
                return
            try:
                await self._sweep_once()
            except Unavailable:
                self._note_away()

    async def _sweep_once(self) -> None:
        sent_s = time.monotonic()
        await self.queue.move_due()
        now_s = time.monotonic()
        if now_s - sent_s > self.settings.lease_s / 3:
            # Redis or this process stood still: leases have lapsed although their holders live.
            self._is_away = True
        await self._note_contact()  # this call may be the first that Redis answers again
        held, self._held = self._held, {}
        for at_s, delivery in held.values():
            if at_s <= now_s and len(self.runs) < self.settings.worker_slots:
                await self._start(delivery)
            else:
                self._start_later(delivery, at_s)
        if now_s < self._quiet_until_s:
            return  # do not claim entries that other workers may start now and we may not
        for lane in keys.LANES:
            slots, running, batch = self._load()
            free = slots - running if lane != "batch" else min(slots - running, slots - batch)
            if free > 0:
                await self._start_all(await self.queue.claim(lane, self.store.lease_ms, free))

    # Cancels and drain

    def _on_cancel(self, generation_id: str) -> None:
        run = self.runs.get(generation_id)
        if run is not None and run.is_holding:
            run.outbox.abandon("ended")
            run.on_answer()
