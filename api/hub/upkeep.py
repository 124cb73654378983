"""The hub's work that is due by time: one timer for all readers and all relays.

    each tick, 0.25 s     cut slow readers
                          wake readers whose place waits for time
                          send heartbeats, rotate old connections
                          probe the live connection
    each second           read logs whose channel is not confirmed
                          close idle relays, keep the memory below its limit
                          tell which readers came and left
                          recheck the tops of silent logs                (errand)
                          renew the reports of generations with a grace  (errand)

Invariant: a tick does not wait. Work that needs Redis is an errand (`Hub.spawn`), and one errand of
each kind runs at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from api.hub.audience import Audience
from api.hub.contracts import (
    BlockableSink,
    Connection,
    ConnectionRecord,
    HeartbeatConnection,
    HubCounters,
    Reader,
    ReadingOutcome,
)
from api.hub.erasure import Erasure
from api.hub.grace import GraceReporter
from api.hub.live_connection import LiveSource
from api.hub.probe import Probe
from api.hub.recheck import RecheckDecision
from api.hub.relay import Relay
from api.hub.timer_wheel import TimerWheel
from shared.config.settings import Settings
from shared.errors import Unavailable
from shared.log.event_bytes import LOST
from shared.log.store import Store
from shared.queue.requeuing import requeue
from shared.redis import keys

logger = logging.getLogger(__name__)

TICK_S = 0.25
RECHECK_INTERVAL_S = 1.0
SILENT_S = 0.9  # since the last message or page: younger logs need no recheck
TOPS_MAX = 500  # in one pipeline
UNCONFIRMED_READ_S = 1.0  # then a log is read although its channel is not subscribed
IDLE_KEEP_S = 10.0  # an unfinished copy without holds is kept this long, for a quick resume


class UpkeepHub(Protocol):
    """The part of a hub (api/hub/hub.py) that its upkeep reads and changes.

    Attributes:
        node: this node's name in Redis.
        relays: relays by generation id.
        connections: open connections, with the time at which each is rotated.
        counters: totals since the node started.
        probe: state of the probing of the live connection.
        live: the live connection.
        grace: reports to Redis which generations with a grace have readers here.
        erasure: drops the copies of deleted generations.
        audience: tells which readers came and left.
        blocked_sinks: sinks whose write waits for the client.
        unplaced_readers: readers whose place may be decided by time; woken at the next tick.
        heartbeats: connections by the time of their next heartbeat.
        now: loop time, s.
        wall_ms: time since 1970, ms.
    """

    store: Store
    settings: Settings
    node: str
    relays: dict[str, Relay]
    connections: dict[Connection, ConnectionRecord]
    counters: HubCounters
    probe: Probe
    live: LiveSource
    grace: GraceReporter
    erasure: Erasure
    audience: Audience
    blocked_sinks: set[BlockableSink]
    unplaced_readers: list[Reader]
    heartbeats: TimerWheel[HeartbeatConnection]
    now: Callable[[], float]
    wall_ms: Callable[[], int]

    def spawn(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None: ...

    def close(self, relay: Relay) -> None: ...

    def stop_listening(self, relay: Relay) -> None: ...


class Upkeep:
    """The timer of a hub. Tests call `tick` instead of `run`."""

    def __init__(self, hub: UpkeepHub) -> None:
        self._hub = hub
        self._second_at = 0.0  # loop time of the latest once-a-second work
        self._running_errands: set[str] = set()

    async def run(self) -> None:
        """Tick until cancelled. An exception is logged, and the next tick follows."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(self._hub.now())
            except Exception:  # boundary: one failure must not stop the timer
                logger.exception("upkeep failed")

    def tick(self, now: float) -> None:
        """Do what is due at loop time `now`, s."""
        self._cut_slow(now)
        self._wake_unplaced()
        self._send_heartbeats(now)
        self._probe(now)
        if now - self._second_at >= RECHECK_INTERVAL_S:
            self._second_at = now
            self._read_unconfirmed(now)
            self._close_idle(now)
            self._hub.audience.tell()
            self._start_errand("recheck", self.recheck)
            self._start_errand("renew", lambda: self._hub.grace.renew(self._hub.relays.values()))

    # Readers

    def _cut_slow(self, now: float) -> None:
        bytes_max = self._hub.settings.subscriber_bytes_max
        for sink in list(self._hub.blocked_sinks):
            if sink.is_too_slow(now, bytes_max):
                self._hub.counters.cut(sink.generation_ids)
                sink.break_off(ReadingOutcome.CUT)

    def _wake_unplaced(self) -> None:
        readers, self._hub.unplaced_readers = self._hub.unplaced_readers, []
        for reader in readers:
            reader.wake()

    def _send_heartbeats(self, now: float) -> None:
        """Send due heartbeats; rotate connections at their age, so that nodes share the load."""
        heartbeats, heartbeat_s = self._hub.heartbeats, self._hub.settings.heartbeat_s
        for connection in heartbeats.pop_due(now):
            record = self._hub.connections.get(connection)
            if record is not None and now >= record.rotate_at:
                self._hub.counters.rotations += 1
                connection.break_off(ReadingOutcome.ROTATED)
            elif (next_at := connection.beat(now, heartbeat_s)) is not None:
                heartbeats.put(connection, next_at)

    # The live connection

    def restart_probe(self) -> None:
        """Probe a connection whose channel is confirmed, at once: until then no node is ready."""
        now = self._hub.now()
        self._hub.probe.restart(now)
        self._probe(now)

    def _probe(self, now: float) -> None:
        hub = self._hub
        if hub.live.is_connected and hub.live.has_probe:
            if hub.probe.expire(now):
                logger.warning("live connection deaf")
                hub.live.drop()
            elif (payload := hub.probe.next_payload(now)) is not None:
                hub.spawn(self._publish_probe(payload))

    async def _publish_probe(self, payload: bytes) -> None:
        try:
            await self._hub.store.publish(keys.probe(self._hub.node), payload)
        except Unavailable:
            self._hub.probe.note_publish_failed(self._hub.now())

    def _read_unconfirmed(self, now: float) -> None:
        for relay in self._hub.relays.values():
            if not relay.is_confirmed and now - relay.opened_at >= UNCONFIRMED_READ_S:
                relay.is_confirmed = True
                relay.read_soon()

    # Memory

    def _close_idle(self, now: float) -> None:
        """Close relays without holds, and keep the memory below its limit.

        A relay of a lost or expired log is closed at once, an unfinished one after `IDLE_KEEP_S`,
        and an ended one when the memory is needed.
        """
        idle = [relay for relay in self._hub.relays.values() if not relay.holds]
        for relay in idle:
            if relay.is_expired or relay.unlogged_end is not None or self._has_expired(relay):
                self._hub.close(relay)
            elif not relay.is_over and now - relay.idle_since >= IDLE_KEEP_S:
                self._hub.close(relay)
        self._keep_within_budget([relay for relay in idle if not relay.is_closed])

    def _keep_within_budget(self, idle: list[Relay]) -> None:
        """Keep the copies below `hub_bytes_max`.

        First close idle relays, the longest idle first. Then trim the others, the largest first.
        """
        relays, bytes_max = self._hub.relays, self._hub.settings.hub_bytes_max
        kept = sum(relay.bytes_kept for relay in relays.values())
        if kept <= bytes_max:
            return  # nearly always: so return before sorting
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
            # The end was received live, so its time is unknown: count from the last hold.
            return self._hub.now() - relay.idle_since > self._hub.settings.retention_s
        return bool(ended_at_ms) and self._hub.wall_ms() > ended_at_ms + retention_ms

    # Errands

    def _start_errand(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        if name not in self._running_errands:
            self._running_errands.add(name)
            self._hub.spawn(self._run_errand(name, work))

    async def _run_errand(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        finally:
            self._running_errands.discard(name)

    async def recheck(self) -> None:
        """Compare the tops of all silent unfinished logs, `TOPS_MAX` in one pipeline.

        Raises:
            Unavailable: Redis did not answer in time; the next second tries again.
        """
        now = self._hub.now()
        silent = [
            relay
            for relay in self._hub.relays.values()
            if relay.is_confirmed and not relay.is_over and now - relay.heard_at >= SILENT_S
        ]
        for start in range(0, len(silent), TOPS_MAX):
            batch = silent[start : start + TOPS_MAX]
            tops = await self._hub.store.known_tops([relay.generation_id for relay in batch])
            for relay, top in zip(batch, tops, strict=True):
                if top is None:
                    continue  # its shard is away
                decision = relay.recheck.decide(top, relay.feed.top, self._hub.now())
                await self._act(relay, decision)

    async def _act(self, relay: Relay, decision: RecheckDecision) -> None:
        if relay.is_over:
            return
        match decision:
            case RecheckDecision.NOTHING:
                if not relay.recheck.is_absent:
                    relay.read_soon()
            case RecheckDecision.REPAIR:
                relay.repair()
            case RecheckDecision.SEAL:
                if await self._hub.store.seal(relay.generation_id) == "sealed":
                    self._end_lost(relay)
            case RecheckDecision.LOST:
                if not await self._hub.erasure.erase_if_deleted(relay.generation_id):
                    self._end_lost(relay)
            case RecheckDecision.EXPIRED:
                relay.declare_expired()
            case RecheckDecision.REQUEUE:
                await requeue(self._hub.store, relay.generation_id, relay.meta.priority)

    def _end_lost(self, relay: Relay) -> None:
        logger.error("generation lost", extra={"generation_id": relay.generation_id})
        relay.end_unlogged(LOST)
        self._hub.stop_listening(relay)
