"""The hub: every log that this node serves, read once, handed to any number of readers.

Owns the relays, the live connection and the tasks; api/hub/upkeep.py does what time asks for.
Invariant: whoever holds a relay (`reading`) keeps it; a relay that nobody holds may go at any time,
because everything in it can be read again. Knows no HTTP and no WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from api.hub.contracts import Beating, Connection, Counters, Outcome, Reader, Slowable, Stay
from api.hub.feed import FeedState
from api.hub.live_connection import Listener, Live, LiveConnection, OpenConnection
from api.hub.meta_lookup import MetaLookup
from api.hub.probe import Probe
from api.hub.pump import Pump, Sink
from api.hub.relay import Relay
from api.hub.statistics import HubStatistics
from api.hub.timer_wheel import Wheel
from api.hub.upkeep import TICK_S, Upkeep
from shared.config.settings import Settings
from shared.errors import Draining, Expired, NotFound, Unavailable
from shared.log.records import Meta
from shared.log.store import Store
from shared.redis import keys

logger = logging.getLogger(__name__)

META_S = 2.0  # within which a meta may be older than the end that came live
OPEN_S = 4.0  # for an ended log to be read before the answer is 503
DRAIN_STEP_S = 0.02
AGE_SHARE = (0.8, 1.0)  # of the longest stay, drawn for each connection
EXIT_S = 3.0  # for what is under way at the end: detaching readers, mostly


class Hub:
    """The fan-out of one node.

    Args:
        node: this node's name in Redis; unique among those that run.
        open_connection: makes the live connection, not yet running.
        clock: loop time, s; by default the running loop's.
        wall_ms: time since 1970, ms.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        node: str,
        open_connection: OpenConnection = LiveConnection,
        clock: Callable[[], float] | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.store = store
        self.settings = settings
        self.node = node
        self.relays: dict[str, Relay] = {}
        self.connections: dict[Connection, Stay] = {}
        self.counters = Counters()
        self.probe = Probe()
        self.blocked: set[Slowable] = set()
        self.places: list[Reader] = []  # wait for their place to be decided
        self.heartbeats: Wheel[Beating] = Wheel(TICK_S)
        self.is_draining = False
        self.now: Callable[[], float] = clock or time.monotonic
        self.wall_ms = wall_ms
        self._clock = clock
        self.repairs_before = 0  # of relays that are gone
        self._channels: dict[bytes, Relay] = {}
        self._probe_channel = keys.probe(node).encode()
        listener: Listener = self
        self.live: Live = open_connection(settings.redis_url, listener)
        self._upkeep = Upkeep(self)
        self._looks = MetaLookup(lambda generation_id: self.store.meta(generation_id))
        self._group = asyncio.TaskGroup()
        self._loops: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[None]] = set()
        self._is_open = False

    async def __aenter__(self) -> Hub:
        await self._group.__aenter__()
        self._is_open = True
        loop = asyncio.get_running_loop()
        self.now = self._clock or loop.time
        self._pump = Pump(self.now, loop.call_soon)
        self.wake_row = self._pump.wake_row
        self.live.subscribe(self._probe_channel)
        self._loops = [
            self._group.create_task(self.live.run(), name="live connection"),
            self._group.create_task(self._upkeep.run(), name="upkeep"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        for connection in list(self.connections):
            connection.break_off(Outcome.DRAINED)
        for loop in self._loops:
            loop.cancel()
        if self._errands:
            await asyncio.wait(self._errands, timeout=EXIT_S)
        for errand in list(self._errands):
            errand.cancel()
        await self._group.__aexit__(None, None, None)

    def spawn(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run a short piece of work in a task of ours; errors are logged. None: it is too late."""
        if not self._is_open:
            errand.close()
            return None
        task = self._group.create_task(self._guard(errand))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def _guard(self, errand: Coroutine[Any, Any, None]) -> None:
        try:
            await errand
        except Unavailable as exc:
            logger.warning("hub errand unavailable", extra={"reason": str(exc)})
        except Exception:  # the hub's loop: one generation's trouble must not end the node
            logger.exception("hub errand failed")

    # Relays

    @asynccontextmanager
    async def reading(self, meta: Meta) -> AsyncIterator[Relay]:
        """Hold the relay of a generation; raises as `hold` does."""
        relay = await self.hold(meta)
        try:
            yield relay
        finally:
            self.release(relay)

    async def hold(self, meta: Meta) -> Relay:
        """Return the relay of a generation, to be released; an ended one has been read.

        Args:
            meta: as the store has it just now, or, with Redis away, as `known` has it.

        Raises:
            RequestError: `draining`; NotFound: sealed; Expired: ended, and its log is gone.
            Unavailable: its log cannot be read now.
        """
        if self.is_draining:
            raise Draining()
        if meta.status == "sealed":
            raise NotFound()
        relay = self._find(meta)
        relay.holds += 1
        try:
            await self._admit(relay)
        except BaseException:
            self.release(relay)
            raise
        return relay

    def expect(self, meta: Meta) -> None:
        """Listen to a generation that is about to be created here: its log is empty so far."""
        if self._is_open and not self.is_draining:
            self._open(meta).is_expected = True

    def expect_no_more(self, generation_id: str) -> None:
        """It was not created, as far as we know."""
        if (relay := self.relays.get(generation_id)) is not None:
            self.close(relay)

    def release(self, relay: Relay) -> None:
        """Let go of a relay. When the last does, it lingers, and the grace begins."""
        relay.holds -= 1
        if not relay.holds:
            relay.idle_since = self.now()
            if relay.is_attached:
                self.spawn(self._detach(relay))

    async def look(self, generation_id: str) -> Meta | None:
        """Return meta for a reader: as it is, or was a moment ago, where many come at once.

        Never from before an end that this node has seen.

        Raises:
            Unavailable.
        """
        meta = await self._looks.meta(generation_id)
        relay = self.relays.get(generation_id)
        is_over = relay is not None and (relay.is_over or relay.feed.is_ended)
        if is_over and meta is not None and not meta.is_ended:
            self._looks.forget(generation_id)
            meta = await self.store.meta(generation_id)
        return meta

    def known(self, generation_id: str) -> Meta | None:
        """Return what this node knows of a generation that it holds, for when Redis is away."""
        relay = self.relays.get(generation_id)
        usable = relay is not None and not relay.is_gone and relay.last_words is None
        return relay.meta if relay is not None and usable else None

    def unfinished(self, generation_id: str) -> Meta | None:
        """Return a generation that this node serves without an end yet.

        When Redis has lost it, its worker is about to write it again, or the recheck will seal it.
        """
        relay = self.relays.get(generation_id)
        return None if relay is None or relay.feed.is_ended else self.known(generation_id)

    def _find(self, meta: Meta) -> Relay:
        relay = self.relays.get(meta.generation_id)
        if relay is not None and self._is_outdated(relay, meta):
            self.close(relay)
            relay = None
        if relay is None:
            return self._open(meta)
        if meta.is_ended and not relay.feed.is_ended:
            relay.is_confirmed = True  # nothing will be published any more
            relay.repair()  # the frame with the end is on its way, or was lost
        relay.take_meta(meta)
        relay.take_up()
        return relay

    def _is_outdated(self, relay: Relay, meta: Meta) -> bool:
        """Whether the copy is of a log that is gone: expired, lost, or ended otherwise."""
        if relay.is_gone or relay.last_words is not None:
            return True
        if not relay.feed.is_ended:
            return False
        retention_ms = round(self.settings.retention_s * 1000)
        if not meta.is_ended:
            # Either the end has come since meta was read, or Redis has lost it.
            return self.now() - relay.heard_at > META_S
        has_expired = self.wall_ms() > meta.ended_at_ms + retention_ms
        return has_expired or relay.feed.raws[-1] != meta.end

    def _open(self, meta: Meta) -> Relay:
        relay = Relay(meta, self.store, spawn=self.spawn, host=self, lease_s=self.settings.lease_s)
        self.relays[meta.generation_id] = relay
        if not meta.is_ended:
            channel = keys.live(meta.generation_id).encode()
            self._channels[channel] = relay
            self.live.subscribe(channel)
        relay.read_soon()
        return relay

    def close(self, relay: Relay) -> None:
        """Let go of a copy. Who still reads it reads on to the end of what it has."""
        relay.is_closed = True
        self.repairs_before += relay.feed.repairs
        if self.relays.get(relay.generation_id) is relay:
            del self.relays[relay.generation_id]
        self.stop_listening(relay)

    def stop_listening(self, relay: Relay) -> None:
        channel = keys.live(relay.generation_id).encode()
        if self._channels.get(channel) is relay:
            del self._channels[channel]
            self.live.unsubscribe(channel)

    async def _admit(self, relay: Relay) -> None:
        if relay.meta.grace_s is not None and not relay.meta.is_ended and not relay.is_over:
            await self._attach(relay)
        if relay.meta.is_ended:
            try:
                async with asyncio.timeout(OPEN_S):
                    await relay.settled()
            except TimeoutError:
                raise Unavailable("the log could not be read in time") from None
            if relay.is_gone:
                raise Expired()

    # Grace

    async def _attach(self, relay: Relay) -> None:
        """Say that this node has readers, before the first byte of the first of them."""
        async with relay.grace_lock:
            if relay.is_attached:
                return
            if await self.store.attach_readers(relay.generation_id, self.node):
                relay.is_attached, relay.attached_at = True, self.now()
                return
        meta = await self.store.meta(relay.generation_id)  # too late: it has ended meanwhile
        if meta is None or meta.status == "sealed":
            raise NotFound()
        relay.take_meta(meta)
        relay.repair()

    async def _detach(self, relay: Relay) -> None:
        async with relay.grace_lock:
            if relay.is_attached and not relay.holds:
                relay.is_attached = False
                if not relay.is_over:
                    await self.store.detach_readers(relay.generation_id, self.node)

    # The live connection

    def subscribed(self, channel: bytes) -> None:
        if channel == self._probe_channel:
            self.probe.restart(self.now())
        elif relay := self._channels.get(channel):
            relay.confirm()

    def message(self, channel: bytes, payload: bytes) -> None:
        relay = self._channels.get(channel)
        if relay is not None:
            relay.offer(payload)
            if relay.feed.state is FeedState.ENDED:
                self.stop_listening(relay)
        elif channel == self._probe_channel:
            self.probe.heard(payload, self.now())

    def disconnected(self) -> None:
        self.probe.restart(self.now())

    @property
    def is_live(self) -> bool:
        """Whether the live connection is up and has lately heard its own probe."""
        return self.live.is_connected and self.probe.is_heard

    # What sinks ask for

    def wake(self, sink: Sink) -> None:
        self._pump.wake(sink)

    def call_at(self, at: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at hub time `at`."""
        return asyncio.get_running_loop().call_later(max(0.0, at - self.now()), callback)

    def note_blocked(self, sink: Slowable) -> None:
        self.blocked.add(sink)

    def note_unblocked(self, sink: Slowable) -> None:
        self.blocked.discard(sink)

    def await_place(self, reader: Reader) -> None:
        self.places.append(reader)

    def admit(self, connection: Connection, transport: str) -> None:
        """Count a connection; a drain breaks it off.

        Its age is drawn at random, so that those who came together do not go together.
        """
        age_s = self.settings.connection_age_s * random.uniform(*AGE_SHARE)
        self.connections[connection] = Stay(transport, self.now() + age_s)

    def dismiss(self, connection: Connection) -> None:
        self.connections.pop(connection, None)
        self.heartbeats.remove(connection)

    # Leaving

    async def drain(self, within_s: float) -> None:
        """Take no more readers, and break off those that are here, in random order over the window.

        They come back at another node, which must not meet them all in one second.
        """
        self.is_draining = True
        waiting = list(self.connections)
        random.shuffle(waiting)
        loop = asyncio.get_running_loop()
        total, began_at = len(waiting), loop.time()
        while self.connections and loop.time() < began_at + within_s:
            due = (loop.time() - began_at) / within_s * total
            while waiting and total - len(waiting) < due:
                self._break_off(waiting.pop())
            await asyncio.sleep(min(DRAIN_STEP_S, within_s))
        deadline = loop.time() + EXIT_S
        while self.connections and loop.time() < deadline:
            for connection in list(self.connections):
                self._break_off(connection)
            await asyncio.sleep(DRAIN_STEP_S)

    def _break_off(self, connection: Connection) -> None:
        if connection in self.connections:
            connection.break_off(Outcome.DRAINED)

    def statistics(self) -> HubStatistics:
        relays = self.relays.values()
        return HubStatistics(
            connections=dict(Counter(stay.transport for stay in self.connections.values())),
            relays=len(self.relays),
            bytes_kept=sum(relay.bytes_kept for relay in relays),
            events_delivered=self.counters.events_delivered,
            bytes_delivered=self.counters.bytes_delivered,
            cuts=self.counters.cuts,
            rotations=self.counters.rotations,
            resets=self.counters.resets,
            repairs=self.repairs_before + sum(relay.feed.repairs for relay in relays),
            reconnects=getattr(self.live, "reconnects", 0),
            probes_lost=self.probe.lost,
            is_live=self.is_live,
        )
