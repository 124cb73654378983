"""What the hub does because time has passed: one timer for all readers and all relays.

Each tick: cut who is too slow, decide who waits for a place, heartbeats. Each second: compare the
tops of silent logs, probe the live connection, renew readers (grace), let go of what nobody reads.
Invariant: a tick never waits; what needs Redis is done by one errand of each kind at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from api.hub.contracts import Beating, Connection, Counters, Outcome, Reader, Slowable, Stay
from api.hub.live_connection import Live
from api.hub.probe import Probe
from api.hub.recheck import Verdict
from api.hub.relay import Relay
from api.hub.timer_wheel import Wheel
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.event_bytes import LOST
from shared.log.store import Store
from shared.queue.lanes import requeue
from shared.redis import keys

logger = logging.getLogger(__name__)

TICK_S = 0.25
RECHECK_S = 1.0
SILENT_S = 0.9  # a log that was heard of more recently needs no comparing
TOPS_MAX = 500  # in one pipeline
UNCONFIRMED_S = 1.0  # then a log is read although its channel is not subscribed
LINGER_S = 10.0  # an unfinished copy that nobody reads is kept this long
RENEW_S = 3.0


class Upkept(Protocol):
    """The state of a hub that its timer looks at and changes (api/hub/hub.py).

    Attributes:
        relays: the copies that the node holds, by generation id.
        connections: everybody who reads, with the time at which each has stayed long enough.
        blocked: sinks whose write waits.
        places: readers whose place could not be decided yet.
        heartbeats: who is to be sent a sign of life, and when.
        now: the hub's clock, s.
        wall_ms: time since 1970, ms.
    """

    store: Store
    settings: Settings
    node: str
    relays: dict[str, Relay]
    connections: dict[Connection, Stay]
    counters: Counters
    probe: Probe
    live: Live
    blocked: set[Slowable]
    places: list[Reader]
    heartbeats: Wheel[Beating]
    now: Callable[[], float]
    wall_ms: Callable[[], int]

    def spawn(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None: ...

    def close(self, relay: Relay) -> None: ...

    def stop_listening(self, relay: Relay) -> None: ...


class Upkeep:
    """The hub's timer. Tests call `tick` with a time of their own."""

    def __init__(self, hub: Upkept) -> None:
        self._hub = hub
        self._second_at = 0.0
        self._under_way: set[str] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(self._hub.now())
            except Exception:  # the hub's loop: the next tick must come
                logger.exception("upkeep failed")

    def tick(self, now: float) -> None:
        self._cut_slow(now)
        self._decide_places()
        self._beat(now)
        self._probe(now)
        if now - self._second_at >= RECHECK_S:
            self._second_at = now
            self._confirm_late(now)
            self._let_go(now)
            self._errand("recheck", self.recheck)
            self._errand("renew", self.renew)

    # Readers

    def _cut_slow(self, now: float) -> None:
        bytes_max = self._hub.settings.subscriber_bytes_max
        for sink in list(self._hub.blocked):
            if sink.is_too_slow(now, bytes_max):
                self._hub.counters.cuts += 1
                sink.break_off(Outcome.CUT)

    def _decide_places(self) -> None:
        waiting, self._hub.places = self._hub.places, []
        for reader in waiting:
            reader.wake()

    def _beat(self, now: float) -> None:
        """Heartbeats; and whoever has stayed long enough leaves, so that nodes share the load."""
        heartbeats, heartbeat_s = self._hub.heartbeats, self._hub.settings.heartbeat_s
        for sink in heartbeats.due(now):
            stay = self._hub.connections.get(sink)
            if stay is not None and now >= stay.until:
                self._hub.counters.rotations += 1
                sink.break_off(Outcome.ROTATED)
            elif (again_at := sink.beat(now, heartbeat_s)) is not None:
                heartbeats.put(sink, again_at)

    # The live connection

    def _probe(self, now: float) -> None:
        hub = self._hub
        if hub.live.is_connected:
            if hub.probe.is_deaf(now):
                logger.warning("live connection deaf")
                hub.live.drop()
            elif (payload := hub.probe.due(now)) is not None:
                hub.spawn(self._publish_probe(payload))

    async def _publish_probe(self, payload: bytes) -> None:
        try:
            await self._hub.store.publish(keys.probe(self._hub.node), payload)
        except Unavailable:
            self._hub.probe.unsent(self._hub.now())

    def _confirm_late(self, now: float) -> None:
        for relay in self._hub.relays.values():
            if not relay.is_confirmed and now - relay.opened_at >= UNCONFIRMED_S:
                relay.is_confirmed = True
                relay.read_soon()

    # Memory

    def _let_go(self, now: float) -> None:
        """Close what nobody reads: unfinished after a while, ended when the room is needed."""
        idle = [relay for relay in self._hub.relays.values() if not relay.holds]
        for relay in idle:
            if relay.is_gone or relay.last_words is not None or self._has_expired(relay):
                self._hub.close(relay)
            elif not relay.is_over and now - relay.idle_since >= LINGER_S:
                self._hub.close(relay)
        self._keep_within_budget([relay for relay in idle if not relay.is_closed])

    def _keep_within_budget(self, idle: list[Relay]) -> None:
        """Let go of what nobody reads, longest idle first; then of what all have behind them."""
        relays, bytes_max = self._hub.relays, self._hub.settings.hub_bytes_max
        kept = sum(relay.bytes_kept for relay in relays.values())
        if kept <= bytes_max:
            return  # as nearly always: nothing is put in order
        for relay in sorted(idle, key=lambda relay: relay.idle_since):
            if kept <= bytes_max:
                return
            kept -= relay.bytes_kept
            self._hub.close(relay)
        for relay in sorted(relays.values(), key=lambda relay: relay.bytes_kept, reverse=True):
            if kept <= bytes_max:
                return
            kept -= relay.bytes_kept
            relay.trim()
            kept += relay.bytes_kept

    def _has_expired(self, relay: Relay) -> bool:
        retention_ms = self._hub.settings.retention_s * 1000
        ended_at_ms = relay.meta.ended_at_ms
        if relay.feed.is_ended and not ended_at_ms:
            # Seen live; the copy may not outlive a log that ends now.
            return self._hub.now() - relay.idle_since > self._hub.settings.retention_s
        return bool(ended_at_ms) and self._hub.wall_ms() > ended_at_ms + retention_ms

    # Errands

    def _errand(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        if name not in self._under_way:
            self._under_way.add(name)
            self._hub.spawn(self._one_errand(name, work))

    async def _one_errand(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._under_way.discard(name)

    async def recheck(self) -> None:
        """Compare the tops of all unfinished logs that have been silent, in one pipeline."""
        now = self._hub.now()
        silent = [
            relay
            for relay in self._hub.relays.values()
            if relay.is_confirmed and not relay.is_over and now - relay.heard_at >= SILENT_S
        ]
        for start in range(0, len(silent), TOPS_MAX):
            batch = silent[start : start + TOPS_MAX]
            tops = await self._hub.store.tops([relay.generation_id for relay in batch])
            for relay, top in zip(batch, tops, strict=True):
                verdict = relay.recheck.judge(top, relay.feed.top, self._hub.now())
                await self._act(relay, verdict)

    async def _act(self, relay: Relay, verdict: Verdict) -> None:
        if relay.is_over:
            return
        match verdict:
            case Verdict.NOTHING:
                if not relay.recheck.is_absent:
                    relay.read_soon()
            case Verdict.REPAIR:
                relay.repair()
            case Verdict.SEAL:
                if await self._hub.store.seal(relay.generation_id) == "sealed":
                    self._lost(relay)
            case Verdict.LOST:
                self._lost(relay)
            case Verdict.GONE:
                relay.declare_gone()
            case Verdict.REQUEUE:
                await requeue(self._hub.store, relay.generation_id, relay.meta.priority)

    def _lost(self, relay: Relay) -> None:
        logger.error("generation lost", extra={"generation_id": relay.generation_id})
        relay.say_last_words(LOST)
        self._hub.stop_listening(relay)

    async def renew(self) -> None:
        """Say again which generations with a grace have readers here."""
        now = self._hub.now()
        for relay in list(self._hub.relays.values()):
            if relay.is_attached and not relay.is_over and now - relay.attached_at >= RENEW_S - 0.5:
                async with relay.grace_lock:
                    if relay.is_attached and relay.holds:
                        relay.attached_at = self._hub.now()
                        await self._hub.store.attach_readers(relay.generation_id, self._hub.node)
