"""A worker: takes entries from the queue, runs them side by side, keeps their leases, drains.

Four loops under one owner: dispatch (take what may start now), renew (a third of a lease apart),
sweep (take over what a silent worker left; hand out what is due), and listen for cancels. Which
generation may be written is never decided here but by the scripts on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping

from redis.exceptions import RedisError

from shared.config import logs
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.records import Ok
from shared.log.store import Store
from shared.queue.lanes import (
    LATER_PER_SWEEP,
    Delivery,
    LaneEntry,
    Presence,
    Queue,
    batch_slots_max,
    put_back,
)
from shared.redis import keys
from shared.redis.client import ANSWER_S, Client, check_server
from shared.redis.resp import AutoPipeline
from workers.appender import Appender
from workers.backends import Backend
from workers.parts import Takeover, WorkerParts
from workers.run import Run
from workers.slots import lanes_to_wait_on, rounds

log = logging.getLogger(__name__)

BLOCK_MS = 500  # also how long an idle worker takes to notice that it should drain
SHORT_BLOCK_MS = 50  # while only some lanes can be waited on
AWAY_PAUSE_S = 0.25
AT_ONCE_S = 0.002  # an answer within this was there already


class Worker:
    """One worker process's part of the system.

    Args:
        redis: for what is rare; what each answer takes has connections of its own.
    """

    def __init__(
        self,
        redis: Client,
        settings: Settings,
        *,
        name: str,
        models: Mapping[str, Model],
        backends: Mapping[str, Backend],
    ) -> None:
        self.redis = redis
        self.settings = settings
        self._line = AutoPipeline(settings.redis_url, answer_s=ANSWER_S)
        self.store = Store(redis, settings, self._line)
        self._waiting = AutoPipeline(settings.redis_url, answer_s=BLOCK_MS / 1000 + 2.0)
        self.queue = Queue(redis, name, self._line, self._waiting)
        self.appender = Appender(self.store, time.monotonic)
        self.counters = dict.fromkeys(
            ("generations", "pieces", "attempts_failed", "takeovers", "leases_lost", "handed_over"),
            0.0,
        )
        self.tools = WorkerParts(
            worker=name,
            settings=settings,
            store=self.store,
            queue=self.queue,
            appender=self.appender,
            models=models,
            backends=backends,
            clock=time.monotonic,
            takeover=lambda: self._takeover,
            counters=self.counters,
            spawn=lambda errand: self._tasks.create_task(errand),
        )
        self.runs: dict[str, Run] = {}
        self.is_draining = False
        self._takeover = Takeover()
        self._quiet_until_s = 0.0  # the same on our clock: what may not begin need not be claimed
        self._is_away = True  # until Redis has answered: the first connection is one, too
        self._was_connected = False
        # Entries of what another worker holds, to be looked at again at (monotonic).
        self._held: dict[tuple[str, bytes], tuple[float, Delivery]] = {}
        self._slot_freed = asyncio.Event()
        self._tasks: asyncio.TaskGroup

    # Life

    async def serve(self, ready: asyncio.Event) -> None:
        """Work until `drain()`; then hand over or finish what runs, and return.

        `ready` is set once Redis has answered.
        """
        try:
            await self._serve(ready)
        finally:
            await self._line.aclose()
            await self._waiting.aclose()

    async def _serve(self, ready: asyncio.Event) -> None:
        await self._connect()
        ready.set()
        async with asyncio.TaskGroup() as services:
            own = [
                services.create_task(loop)
                for loop in (self.appender.run(), self._renew(), self._sweep(), self._listen())
            ]
            async with asyncio.TaskGroup() as self._tasks:
                try:
                    await self._dispatch()
                    await self._hand_over()
                finally:
                    self.is_draining = True  # cancelled, too: the sweep starts nothing more
            for task in own:
                task.cancel()
        try:
            await self.queue.withdraw()
        except Unavailable:
            pass  # its presence is old soon, which says the same

    @property
    def is_connected(self) -> bool:
        """Whether Redis has ever answered; before that there is nothing to drain."""
        return self._was_connected

    def drain(self) -> None:
        """Take nothing more; `serve` returns when what runs is over or handed over."""
        self.is_draining = True
        self._slot_freed.set()

    async def _connect(self) -> None:
        while True:
            try:
                await check_server(self.redis)
                await self.queue.ensure_groups()
                await self._note_contact()
                return
            except Unavailable as exc:
                log.warning("redis away", extra={"reason": str(exc)})
                await asyncio.sleep(AWAY_PAUSE_S * random.uniform(1, 3))

    async def _note_contact(self) -> None:
        """After a time without Redis: the living go first, so take nothing over for one lease."""
        if self._is_away:
            now_ms = await self.store.now_ms()
            until_ms = now_ms + self.store.lease_ms
            # A first connection is no outage: then a lapsed lease is its holder's failure.
            self._takeover = Takeover(until_ms, until_ms if self._was_connected else 0)
            self._quiet_until_s = time.monotonic() + self.settings.lease_s
            self._is_away, self._was_connected = False, True

    async def _pause_away(self, exc: Unavailable) -> None:
        if not self._is_away:
            log.warning("redis away", extra={"reason": str(exc)})
        self._is_away = True
        await asyncio.sleep(AWAY_PAUSE_S * random.uniform(0.5, 1.5))

    # Taking work

    async def _dispatch(self) -> None:
        is_empty = False
        while not self.is_draining:
            try:
                await self._note_contact()
                if is_empty or not await self._take():
                    is_empty = await self._wait()
            except Unavailable as exc:
                await self._pause_away(exc)

    def _load(self) -> tuple[int, int, int]:
        batch = sum(run.ticket.priority == "batch" for run in self.runs.values())
        return self.settings.worker_slots, len(self.runs), batch

    async def _take(self) -> bool:
        """Take what may start now; whether there was anything."""
        for lane, count in rounds(*self._load()):
            deliveries = await self.queue.read(lane, count)
            for delivery in deliveries:
                await self._start(delivery)
            if deliveries:
                return True
        return False

    async def _wait(self) -> bool:
        """Wait for the next entry; whether the lanes are empty, as far as one can tell.

        An entry that had to be waited for was the only one: to look through all lanes after each
        would cost four times what it takes to begin.
        """
        lanes = lanes_to_wait_on(*self._load())
        if not lanes:
            self._slot_freed.clear()
            if len(self.runs) >= self.settings.worker_slots and not self.is_draining:
                await self._slot_freed.wait()
            return False
        is_every_lane = len(lanes) == len(keys.LANES)
        began_s = time.monotonic()
        deliveries = await self.queue.wait(lanes, BLOCK_MS if is_every_lane else SHORT_BLOCK_MS)
        waited_s = time.monotonic() - began_s
        for delivery in deliveries:
            await self._start(delivery)
        if deliveries:
            await asyncio.sleep(0)  # they begin before the next one is asked for
        return is_every_lane and waited_s > AT_ONCE_S

    async def _start(self, delivery: Delivery) -> None:
        ticket = delivery.ticket
        if ticket is None or ticket.model not in self.tools.models:
            # Written by a newer version, or for a model of other workers: theirs to claim.
            log.warning("entry left for others", extra={"entry": str(delivery.entry_id)})
            return
        if ticket.id in self.runs:
            await self._set_aside(delivery, self.runs[ticket.id])
            return
        if self.is_draining:  # it came in the last moment: somebody else's, at once
            await self._put_back(delivery, ticket, "resume")
            return
        if ticket.priority == "batch" and self._is_batch_full():
            # `resume` carries both priorities and cannot be asked for one: over its share, a line
            # goes on from its own lane.
            await self._put_back(delivery, ticket, "batch")
            return
        run = Run(self.tools, delivery, ticket)
        self.runs[ticket.id] = run
        self._tasks.create_task(self._run(run))

    async def _set_aside(self, delivery: Delivery, run: Run) -> None:
        """One entry in hand is enough; but it may be that very one, read or claimed once more."""
        if delivery.entry_id == run.delivery.entry_id:
            return
        if run.is_giving_back:  # this may be what it has given back already: the only way on
            self._look_again(delivery, time.monotonic())
            return
        await self.queue.acknowledge(delivery)

    def _is_batch_full(self) -> bool:
        slots, _, batch = self._load()
        return batch >= batch_slots_max(slots)

    async def _put_back(self, delivery: Delivery, ticket: LaneEntry, lane: str) -> None:
        await put_back(self.store, ticket.id, ticket.priority, ticket.model, lane=lane)
        await self.queue.acknowledge(delivery)

    async def _run(self, run: Run) -> None:
        logs.generation_id.set(run.id)
        try:
            await run.execute()
        except Exception:  # the generation boundary: one answer's accident is not the others'
            log.exception("run failed", extra={"generation_id": run.id})
        finally:
            del self.runs[run.id]
            self._slot_freed.set()
        if run.held_ms is not None:
            self._look_again(run.delivery, time.monotonic() + run.held_ms / 1000)

    def _look_again(self, delivery: Delivery, at_s: float) -> None:
        # Once for each entry, however often it is claimed before that.
        self._held[delivery.lane, delivery.entry_id] = at_s, delivery

    # Keeping and taking over

    async def _renew(self) -> None:
        while True:
            try:
                await self._renew_once()
            except Unavailable as exc:
                log.warning("renewal failed", extra={"reason": str(exc)})
                self._is_away = True
                self._stop_if_cut_off()
            await asyncio.sleep(self.settings.lease_s / 3)

    async def _renew_once(self) -> None:
        holding = [run for run in self.runs.values() if run.is_holding]
        sent_at_s = time.monotonic()
        outcomes = await self.store.renew_many(
            [(run.id, run.outbox.token, run.outbox.attempt) for run in holding]
        )
        now_s = time.monotonic()
        mine: dict[str, list[bytes]] = {}
        for run, outcome in zip(holding, outcomes, strict=True):
            run.outbox.renewed(outcome, sent_at_s, now_s)
            run.on_answer()
            self.appender.offer(run)  # a loss seen here is mended there
            if isinstance(outcome, Ok):
                mine.setdefault(run.delivery.lane, []).append(run.delivery.entry_id)
        if mine:
            await self.queue.renew(mine)
        now_ms = await self.store.now_ms()
        self.appender.last_ok_s = max(self.appender.last_ok_s, sent_at_s)
        await self.queue.note_running([run.id for run in holding if run.is_holding], now_ms)
        await self.queue.announce(self._presence(now_ms))

    def _presence(self, now_ms: int) -> Presence:
        counters = self.counters | {
            "entries": float(self.appender.entries),
            "append_calls": float(self.appender.calls),
        }
        return Presence(
            worker=self.tools.worker,
            at_ms=now_ms,
            slots=self.settings.worker_slots,
            running=len(self.runs),
            draining=self.is_draining,
            counters=counters,
        )

    def _stop_if_cut_off(self) -> None:
        """Redis has been away for so long that the leases are gone: close the backends."""
        away_s = time.monotonic() - self.appender.last_ok_s
        if away_s > self.settings.redis_outage_s and self.runs:
            log.error("redis away for too long", extra={"away_s": round(away_s, 1)})
            for run in self.runs.values():
                run.stop("outage")

    async def _sweep(self) -> None:
        pause_s = min(self.settings.lease_s / 8, 0.5)
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.6, 1.4))
            if self.is_draining:
                return
            try:
                await self._sweep_once()
            except Unavailable:
                self._is_away = True

    async def _sweep_once(self) -> None:
        lane_keys = [keys.LATER, keys.lane("resume")]
        sent_s = time.monotonic()
        await self.store.scripts.run("later", lane_keys, [LATER_PER_SWEEP])
        now_s = time.monotonic()
        if now_s - sent_s > self.settings.lease_s / 3:
            # Redis, or this process, stood still: leases have run out that nobody gave up.
            self._is_away = True
        await self._note_contact()  # it may be the first to find Redis back
        held, self._held = self._held, {}
        for at_s, delivery in held.values():
            if at_s <= now_s and len(self.runs) < self.settings.worker_slots:
                await self._start(delivery)
            else:
                self._look_again(delivery, at_s)
        if now_s < self._quiet_until_s:
            return  # another worker may take it over at once: it must not wait with us
        for lane in keys.LANES:
            slots, running, batch = self._load()
            free = slots - running if lane != "batch" else min(slots - running, slots - batch)
            if free > 0:
                for delivery in await self.queue.claim(lane, self.store.lease_ms, free):
                    await self._start(delivery)

    # Stopping

    async def _listen(self) -> None:
        """Cancels, as they are made. A missed one is learnt from the next append or renewal."""
        while True:
            pubsub = self.redis.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(keys.CANCEL)
                while True:
                    message = await pubsub.get_message(timeout=1.0)
                    run = self.runs.get(message["data"].decode()) if message else None
                    if run is not None and run.is_holding:
                        run.outbox.forgo("ended")
                        run.on_answer()
            except (RedisError, OSError):
                await asyncio.sleep(AWAY_PAUSE_S * random.uniform(0.5, 1.5))
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _hand_over(self) -> None:
        """Give back at once what others can go on with; let the rest finish within the drain."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.settings.drain_s
        for run in list(self.runs.values()):
            if run.can_hand_over():
                run.stop("drain")
        while self.runs and loop.time() < until_s:
            self._slot_freed.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._slot_freed.wait()
            except TimeoutError:
                break
        for run in list(self.runs.values()):
            run.stop("drain")
