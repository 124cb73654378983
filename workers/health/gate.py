"""The gate before a run: a generation whose backend cannot take it now waits in the queue.

    the backend …                           the generation …
    is away, and its breaker is open        goes to `later`, for a part of the cool-down
    has nothing left of its rate limit      goes to `later`, until the vendor gives more
    has no free slot                        waits in the line of the backend, with its queue entry

A generation that waits has no run, takes no slot of a worker, counts no attempt, writes no event.
A model with a route waits only if none of its backends can take it. The gate costs nothing for a
backend without `slots` that is not open and not limited: no round trip, no wait.

Invariant: a generation that was sent away has another queue entry before the gate acknowledges the
entry at hand.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from shared.backends.slots import BackendSlots, Granted, Waiter, announce_slotted
from shared.config.models import Model, ModelTable
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.queue.entries import Delivery, LaneEntry, decode_entry
from shared.queue.lanes import Queue
from shared.queue.turns import weight_of
from shared.redis import backend_keys, keys
from workers.failures.outage import OUTAGE_PAUSE_MAX_S, OUTAGE_PAUSE_MIN_S, Postponed
from workers.health.health import BackendHealth

LIMITED_PAUSE_MAX_S = 20.0
ANNOUNCE_S = 10.0  # well below `SLOTTED_MS`


class Entrant(Protocol):
    """A run before its begin.

    Attributes:
        is_giving_back: another entry of the generation may exist: do not drop it.
    """

    delivery: Delivery
    ticket: LaneEntry
    is_giving_back: bool

    @property
    def model(self) -> Model: ...


class Gate:
    """The gate of one worker.

    Args:
        models: the tables of the models file.
    """

    def __init__(
        self,
        health: BackendHealth,
        queue: Queue,
        models: Mapping[str, Model],
        settings: Settings,
    ) -> None:
        self._health = health
        self._queue = queue
        self._settings = settings
        tables = models.tables if isinstance(models, ModelTable) else models
        lease_ms = round(settings.lease_s * 1000)
        self._slots = {
            name: BackendSlots(queue.scripts, name, tables[name].slots, lease_ms)
            for name in health.backends
            if tables[name].slots
        }
        self._held: dict[str, set[str]] = {}  # generation -> backends where it has a slot
        # Backend -> generations whose call there is over, and whose slot is to be given back.
        self._returned: dict[str, set[str]] = {name: set() for name in self._slots}
        self._wake = {name: asyncio.Event() for name in self._slots}
        self._trials: dict[str, str] = {}  # generation -> backend whose trial it took
        if self._slots:
            health.slot_taker = self

    async def admit(self, run: Entrant) -> bool:
        """Whether a run may begin. If not, its generation waits, and the run has nothing to do.

        Raises:
            Unavailable: Redis did not answer in time; the entry is kept, and claimed later.
        """
        route = run.model.route
        if route is None:
            backends = [self._health.backend_of(run.model.name)]
            waiting = await self._backend_wait(run, backends[0])
        else:
            backends = self._in_reach(route.backends)
            waiting = None if backends else self._limit_wait(run, route.backends)
        if waiting is None and any(name not in self._slots for name in backends):
            if _may_wait_in_lines(run):
                await self._leave_lines(run)
            return True
        if route is not None and await self._is_held(run.ticket.id):
            return True  # begin refuses this run: it needs no slot and no place in a line
        run.is_giving_back = True
        if await self._sends_away(run, backends, waiting):
            await self._queue.acknowledge(run.delivery)
            return False
        run.is_giving_back = False
        return True

    async def _sends_away(
        self, run: Entrant, backends: Sequence[str], waiting: Postponed | None
    ) -> bool:
        """Whether a generation waits now. An ended one does not: its run takes it off the queue."""
        if waiting is None and await self._take_one(run, backends):
            return False
        if await self._queue.has_ended(run.ticket.id):
            return False
        if waiting is None:
            return not await self._enter_lines(run, backends)
        at_ms = self._health.now_ms() + round(1000 * waiting.pause_s)
        await self._queue.try_later(waiting.ticket, at_ms, guard_s=waiting.pause_s)
        return True

    async def leave(self, run: Entrant) -> None:
        """Give back what a run has taken. Its slots go to those that wait."""
        self._return_trial(run)
        for backend in self._held.pop(run.ticket.id, ()):
            self._returned[backend].discard(run.ticket.id)
            with suppress(Unavailable):  # the slot comes back when its lease is over
                await self._pass_on(await self._slots[backend].call(released=[run.ticket.id]))

    def done(self, backend: str, generation_id: str) -> None:
        """See `SlotTaker.done`."""
        if backend in self._held.get(generation_id, ()):
            self._returned[backend].add(generation_id)
            self._wake[backend].set()

    def forget(self, run: Entrant, *, may_be_asking: bool) -> None:
        """Keep the slots of a run no longer; they come back when their leases are over.

        Args:
            may_be_asking: its call to the backend may be under way: its trial is not given back.
        """
        if may_be_asking:
            self._trials.pop(run.ticket.id, None)
        self._return_trial(run)
        for backend in self._held.pop(run.ticket.id, ()):
            self._returned[backend].discard(run.ticket.id)

    def _return_trial(self, run: Entrant) -> None:
        if (backend := self._trials.pop(run.ticket.id, "")) != "":
            self._health.return_trial(backend, run.ticket.id)

    async def take(self, backend: str, generation_id: str) -> bool:
        """See `BackendHealth.take_slot`."""
        held = self._held.get(generation_id, set())
        if backend not in self._slots:
            return True
        if backend in held:
            self._returned[backend].discard(generation_id)
            return True
        granted = await self._slots[backend].call(Waiter(generation_id))
        await self._pass_on(granted)
        if granted.has_slot:
            self._held.setdefault(generation_id, set()).add(backend)
        return granted.has_slot

    async def run(self) -> None:
        """Keep the slots of this worker, and grant those of dead workers, until cancelled.

        Each backend has a loop of its own, because its slots may be on a shard of a cluster of
        their own. A shard may be silent for longer than the slots of the others are kept.
        """
        if self._slots:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._announce())
                for backend in self._slots:
                    loops.create_task(self._keep_on(backend))

    async def _announce(self) -> None:
        while True:
            pause_s = self._settings.lease_s / 3
            with suppress(Unavailable):  # the other loops of the worker report it
                now_ms = self._health.now_ms()
                await announce_slotted(self._queue.redis, list(self._slots), now_ms)
                pause_s = ANNOUNCE_S
            await asyncio.sleep(pause_s)

    async def _keep_on(self, backend: str) -> None:
        wake = self._wake[backend]
        while True:
            with suppress(Unavailable):  # the other loops of the worker report it
                await self.keep(backend)
            wake.clear()
            if not self._returned[backend]:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.lease_s / 3):
                        await wake.wait()

    async def keep(self, backend: str) -> None:
        """Keep the slots that this worker has of a backend, and grant the free ones.

        Raises:
            Unavailable: Redis did not answer in time. Slots that were given back meanwhile come
                back when their leases are over.
        """
        returned, self._returned[backend] = self._returned[backend], set()
        for generation_id in returned:
            self._held[generation_id].discard(backend)
        kept = [name for name, backends in self._held.items() if backend in backends]
        slots = self._slots[backend]
        await self._pass_on(await slots.call(released=list(returned), kept=kept))

    # Waiting for a backend

    def _in_reach(self, backends: Sequence[str]) -> list[str]:
        """Return the backends of a route that may be asked. If all cool down, all are tried."""
        states = {name: self._health.state(name) for name in backends}
        closed = [name for name in backends if states[name] in ("closed", "suspect")]
        return closed or [name for name in backends if not self._health.is_limited(name)]

    def _limit_wait(self, run: Entrant, backends: Sequence[str]) -> Postponed | None:
        """Return how a generation waits for the rate limit that comes back first."""
        wait_s = min(self._health.wait_s(name) for name in backends)
        if wait_s > self._settings.queue_wait_s:
            return None  # the vendor's refusal is a better answer than a wait without hope
        return Postponed(run.ticket, min(wait_s, LIMITED_PAUSE_MAX_S) * random.uniform(1.0, 1.1))

    async def _backend_wait(self, run: Entrant, backend: str) -> Postponed | None:
        """Return how a generation waits for its only backend; None: it asks the backend."""
        health = self._health
        if health.is_limited(backend):
            return self._limit_wait(run, [backend])
        breaker = health.breaker(backend)
        if breaker.state == "closed":
            return None
        if await health.admit(backend, run.ticket.id, takes_slot=False):
            self._trials[run.ticket.id] = backend
            return None
        if not breaker.is_away or run.model.on_takeover == "fail":
            return None  # another prompt may succeed, and no other backend could
        return self._return_wait(run.ticket, health.wait_s(backend))

    def _return_wait(self, ticket: LaneEntry, wait_s: float) -> Postponed | None:
        """Return how a generation waits for a server that is away; None: it has waited enough."""
        now_ms = self._health.now_ms()
        since_ms = ticket.away_since_ms or now_ms
        pause_s = min(max(wait_s, OUTAGE_PAUSE_MIN_S), OUTAGE_PAUSE_MAX_S)
        if ticket.priority != "batch":  # the lines of a batch have a time of their own
            left_s = self._settings.upstream_outage_s - (now_ms - since_ms) / 1000
            if left_s <= 0:
                return None
            pause_s = min(pause_s, left_s)
        waiting = msgspec.structs.replace(ticket, away_since_ms=since_ms)
        return Postponed(waiting, pause_s * random.uniform(0.8, 1.0))

    # Slots

    async def _take_one(self, run: Entrant, backends: Sequence[str]) -> bool:
        """Take a slot of one of the backends; whether one was free."""
        for backend in backends:
            if await self.take(backend, run.ticket.id):
                if _may_wait_in_lines(run):
                    await self._leave_lines(run, but=backend)
                return True
        return False

    async def _enter_lines(self, run: Entrant, backends: Sequence[str]) -> bool:
        """Wait in the lines of all backends; whether one of them had a free slot."""
        ticket = run.ticket
        weight = await weight_of(
            self._queue.pipeline, ticket.priority, ticket.owner, run.delivery.tag
        )
        waiter = Waiter(
            ticket.id,
            entry=msgspec.json.encode(ticket),
            is_batch=ticket.priority == "batch",
            has_begun=run.delivery.lane == "resume",
            owner=ticket.owner,
            weight=weight,
        )
        for backend in backends:
            granted = await self._slots[backend].call(waiter)
            await self._pass_on(granted)
            if granted.has_slot:
                self._held.setdefault(ticket.id, set()).add(backend)
                await self._leave_lines(run, but=backend)
                return True
        return False

    async def _leave_lines(self, run: Entrant, *, but: str = "") -> None:
        """Leave the lines of the other backends of a route, and return what they granted.

        Also of those that are out of reach now: the generation entered their lines while they were
        in reach. Otherwise their next slots are granted to a generation that runs elsewhere.

        A line that does not answer must not stop a run that needs no slot of its backend. So the
        generation stays in such a line, and a slot that it is granted there comes back later.
        """
        route, generation_id = run.model.route, run.ticket.id
        names = route.backends if route is not None else ()
        others = [name for name in names if name in self._slots and name != but]
        if not others:
            return
        try:
            places = await self._queue.pipeline.run(
                [("ZSCORE", backend_keys.slots(name)[1], generation_id) for name in others]
            )
        except Unavailable:
            return
        for backend, place in zip(others, places, strict=True):
            if place is None:
                continue
            with suppress(Unavailable):
                await self._pass_on(await self._slots[backend].call(released=[generation_id]))

    async def _is_held(self, generation_id: str) -> bool:
        """Whether a worker runs a generation and has renewed its lease as usual.

        The lease is renewed every third of its time. With less than a third left the holder may be
        dead, so the run takes a slot before it tries to begin.
        """
        (lease,) = await self._queue.pipeline.run([("HGET", keys.meta(generation_id), "lease")])
        if not isinstance(lease, bytes):
            return False
        return int(lease) > self._health.now_ms() + round(self._settings.lease_s * 1000 / 3)

    async def _pass_on(self, granted: Granted) -> None:
        """Put the generations that were granted a slot on `resume`.

        If Redis does not answer, their slots are granted anew after `GRANT_MS`. The caller must
        not fail because of them: it has kept or taken its slots already.
        """
        tickets = [ticket for raw in granted.entries if (ticket := decode_entry(raw)) is not None]
        if tickets:
            with suppress(Unavailable):
                await self._queue.put_back(tickets)


def _may_wait_in_lines(run: Entrant) -> bool:
    """Whether an earlier run of a generation may have entered lines.

    A line gives an entry back on `resume`. If a run enters a line and then fails, its own entry
    stays on its lane until a worker claims it.
    """
    return run.delivery.lane == "resume" or run.delivery.is_claimed
