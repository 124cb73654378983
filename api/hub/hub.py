"""The hub of one node: one copy of each log that the node serves, for any number of readers.

Wires the parts together: owns the relays (api/hub/relay.py), the live connection, the pump and the
tasks. api/hub/upkeep.py does what is due because time has passed.

    request ──hold(meta)──▶ relay in `relays`, opened if there is none ──release()──▶ idle
    Redis ──message(channel, payload)──▶ relay of the channel ──▶ readers ──wake──▶ pump

Invariant: a relay with holds stays open, unless its log was replaced or is gone. A relay without
holds may be closed at any time: all of it can be read again. Knows no HTTP and no WebSocket.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from api.compression.encodings import Encodings
from api.hub.audience import Audience
from api.hub.channels import Channels
from api.hub.contracts import (
    BlockableSink,
    Connection,
    ConnectionRecord,
    HeartbeatConnection,
    HubCounters,
    Reader,
    ReadingOutcome,
)
from api.hub.drain import break_off_all
from api.hub.erasure import DELETED_CHANNEL, Erasure
from api.hub.feed import FeedState
from api.hub.first_tokens import FirstTokens
from api.hub.grace import GraceReporter
from api.hub.live_connection import LiveSource, OpenConnection
from api.hub.live_source import open_live_source
from api.hub.meta_lookup import MetaLookup
from api.hub.outdated import is_outdated
from api.hub.probe import Probe
from api.hub.pump import Pump, Sink
from api.hub.relay import Relay
from api.hub.statistics import HubStatistics, statistics_of
from api.hub.timer_wheel import TimerWheel
from api.hub.upkeep import TICK_S, Upkeep
from shared.config.settings import Settings
from shared.errors import Draining, Expired, NotFound, Unavailable
from shared.log.records import Meta
from shared.log.store import Store
from shared.redis import keys

logger = logging.getLogger(__name__)

LOG_READ_S = 4.0  # for reading a log to its end; then the answer is 503
AGE_SHARE = (0.8, 1.0)  # of `connection_age_s`, drawn for each connection
EXIT_S = 3.0  # for the errands that run at exit: mostly detaching readers


class Hub:
    """The fan-out of one node. `UpkeepHub` in api/hub/upkeep.py describes the attributes.

    Args:
        node: this node's name in Redis; unique among the running nodes.
        open_connection: makes the live connection; `run` is called later.
        clock: loop time, s; None: the time of the running loop.
        wall_ms: time since 1970, ms.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        node: str,
        open_connection: OpenConnection = open_live_source,
        clock: Callable[[], float] | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.store = store
        self.settings = settings
        self.encodings = Encodings(settings.stream_encoding_names)
        self.node = node
        self.relays: dict[str, Relay] = {}
        self.connections: dict[Connection, ConnectionRecord] = {}
        self.counters = HubCounters()
        self.probe = Probe()
        self.blocked_sinks: set[BlockableSink] = set()
        self.unplaced_readers: list[Reader] = []
        self.heartbeats: TimerWheel[HeartbeatConnection] = TimerWheel(TICK_S)
        self.is_draining = False  # True: no further readers are taken
        self.now: Callable[[], float] = clock or time.monotonic
        self.wall_ms = wall_ms
        self._clock = clock
        self.repairs_closed = 0  # repairs of relays that are closed
        self._channels: dict[bytes, Relay] = {}
        self._probe_channel = keys.probe(node).encode()
        self.live: LiveSource = open_connection(settings.redis_url, self)
        self.channels = Channels(self.live)
        self.grace = GraceReporter(store, node, lambda: self.now())
        self.erasure = Erasure(self)
        self.audience = Audience(lambda: self.now())
        self.first_tokens = FirstTokens(lambda: self.now())
        self._upkeep = Upkeep(self)
        self._meta_lookup = MetaLookup(lambda generation_id: self.store.meta(generation_id))
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
        self.live.subscribe(DELETED_CHANNEL)
        self._loops = [
            self._group.create_task(self.live.run(), name="live connection"),
            self._group.create_task(self._upkeep.run(), name="upkeep"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_open = False
        for connection in list(self.connections):
            connection.break_off(ReadingOutcome.DRAINED)
        for loop in self._loops:
            loop.cancel()
        if self._errands:
            await asyncio.wait(self._errands, timeout=EXIT_S)
        for errand in list(self._errands):
            errand.cancel()
        await self._group.__aexit__(None, None, None)

    def spawn(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run an errand: a short piece of work in a task of the hub, which logs its exceptions.

        Returns:
            The task; None: the hub is not open, and the errand was closed.
        """
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
        except Exception:  # boundary: a failure of one generation must not end the node
            logger.exception("hub errand failed")

    # Relays

    @asynccontextmanager
    async def reading(self, meta: Meta) -> AsyncIterator[Relay]:
        """Hold the relay of a generation within `async with`. Raises the errors of `hold`."""
        relay = await self.hold(meta)
        try:
            yield relay
        finally:
            self.release(relay)

    async def hold(self, meta: Meta) -> Relay:
        """Return the relay of a generation. The caller has to `release` it.

        If the generation has ended, its log has been read to the end.

        Args:
            meta: as Redis has it now; with Redis away, as `find_held_meta` returns it.

        Raises:
            RequestError: `draining`: this node stops.
            NotFound: the generation is sealed.
            Expired: the generation has ended, and its log has expired.
            Unavailable: Redis did not answer, or an ended log was not read within
                `LOG_READ_S`.
        """
        if self.is_draining:
            raise Draining()
        if meta.status == "sealed":
            raise NotFound()
        relay = self._find(meta)
        relay.holds += 1
        self.audience.join(relay.generation_id, has_ended=relay.is_over or meta.is_ended)
        try:
            await self._admit(relay)
        except BaseException:
            self.release(relay)
            raise
        return relay

    def hold_on(self, relay: Relay) -> None:
        """Hold a held relay once more, for a reader that goes on when its handler returns."""
        relay.holds += 1
        self.audience.stay(relay.generation_id)

    def expect_creation(self, meta: Meta) -> None:
        """Subscribe to a generation that this node is about to create: its log is empty."""
        if self._is_open and not self.is_draining:
            self._open(meta).is_expected = True

    def cancel_expected(self, generation_id: str) -> None:
        """Close the relay of an expected generation, because it was not created."""
        if (relay := self.relays.get(generation_id)) is not None:
            self.close(relay)

    def release(self, relay: Relay) -> None:
        """Give back a held relay. Without holds the relay is idle, and the grace begins."""
        relay.holds -= 1
        self.audience.leave(relay.generation_id, has_ended=relay.is_over)
        if not relay.holds:
            relay.idle_since = self.now()
            if relay.is_attached:
                self.spawn(self.grace.detach(relay))

    async def look_up_meta(self, generation_id: str) -> Meta | None:
        """Return meta for a reader; None: there is no such generation.

        Readers that ask at the same moment share one read (api/hub/meta_lookup.py). The result is
        never older than an end that this node has received.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        meta = await self._meta_lookup.meta(generation_id)
        relay = self.relays.get(generation_id)
        if relay is not None and relay.is_over and meta is not None and not meta.is_ended:
            self._meta_lookup.forget(generation_id)
            meta = await self.store.meta(generation_id)
        return meta

    def find_held_meta(self, generation_id: str) -> Meta | None:
        """Return meta from this node's relay, for use while Redis is away; None: there is none."""
        relay = self.relays.get(generation_id)
        is_usable = relay is not None and not relay.is_expired and relay.unlogged_end is None
        return relay.meta if relay is not None and is_usable else None

    def find_unfinished_meta(self, generation_id: str) -> Meta | None:
        """Return meta from this node's relay, if the relay has no end yet; else None.

        For a generation that Redis has lost: its worker will restore it, or the recheck seals it.
        """
        relay = self.relays.get(generation_id)
        return None if relay is None or relay.feed.is_ended else self.find_held_meta(generation_id)

    def _find(self, meta: Meta) -> Relay:
        relay = self.relays.get(meta.generation_id)
        retention_ms = round(self.settings.retention_s * 1000)
        if relay is not None and is_outdated(
            relay, meta, now=self.now(), wall_ms=self.wall_ms(), retention_ms=retention_ms
        ):
            self.close(relay)
            relay = None
        if relay is None:
            return self._open(meta)
        if meta.is_ended and not relay.feed.is_ended:
            relay.is_confirmed = True  # nothing more will be published: no subscription is needed
            relay.repair()  # the frame with the end was lost, or has not arrived yet
        relay.update_meta(meta)
        relay.prepare_read()
        return relay

    def _open(self, meta: Meta) -> Relay:
        relay = Relay(meta, self.store, spawn=self.spawn, host=self, lease_s=self.settings.lease_s)
        self.relays[meta.generation_id] = relay
        self.first_tokens.watch(relay)
        if not meta.is_ended:
            channel = keys.live(meta.generation_id).encode()
            self._channels[channel] = relay
            self.live.subscribe(channel)
        relay.read_soon()
        return relay

    def close(self, relay: Relay) -> None:
        """Forget a relay. Its present readers read on to the end of the copy."""
        relay.is_closed = True
        self.repairs_closed += relay.feed.repairs
        if self.relays.get(relay.generation_id) is relay:
            del self.relays[relay.generation_id]
        self.stop_listening(relay)

    def stop_listening(self, relay: Relay) -> None:
        """Unsubscribe from the live channel of a generation that publishes nothing more."""
        channel = keys.live(relay.generation_id).encode()
        if self._channels.get(channel) is relay:
            del self._channels[channel]
            self.live.unsubscribe(channel)

    async def _admit(self, relay: Relay) -> None:
        if relay.meta.grace_s is not None and not relay.meta.is_ended and not relay.is_over:
            await self._attach(relay)
        if relay.meta.is_ended:
            try:
                async with asyncio.timeout(LOG_READ_S):
                    await relay.wait_settled()
            except TimeoutError:
                raise Unavailable("the log could not be read in time") from None
            if relay.is_expired:
                raise Expired()

    async def _attach(self, relay: Relay) -> None:
        if await self.grace.attach(relay):
            return
        meta = await self.store.meta(relay.generation_id)  # the generation has ended
        if meta is None or meta.status == "sealed":
            raise NotFound()
        relay.update_meta(meta)
        relay.repair()

    # The live connection: the methods of `Listener`

    def subscribed(self, channel: bytes) -> None:
        if channel == self._probe_channel:
            self._upkeep.restart_probe()
        elif channel == DELETED_CHANNEL:
            self.spawn(self.erasure.look())
        elif relay := self._channels.get(channel):
            relay.confirm()
        else:
            self.channels.subscribed(channel)

    def message(self, channel: bytes, payload: bytes) -> None:
        relay = self._channels.get(channel)
        if relay is not None:
            relay.offer(payload)
            if relay.feed.state is FeedState.ENDED:
                self.stop_listening(relay)
        elif channel == self._probe_channel:
            self.probe.receive(payload, self.now())
        elif channel == DELETED_CHANNEL:
            self.erasure.take(payload)
        else:
            self.channels.message(channel, payload)

    def disconnected(self) -> None:
        self.probe.restart(self.now())

    @property
    def is_live(self) -> bool:
        """Whether the live connection is up and has received its latest probe."""
        return self.live.is_connected and (self.probe.is_heard or not self.live.has_probe)

    # For sinks and readers

    def wake(self, sink: Sink) -> None:
        """Give `sink` a turn soon."""
        self._pump.wake(sink)

    def call_at(self, at: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` at loop time `at`, s."""
        return asyncio.get_running_loop().call_later(max(0.0, at - self.now()), callback)

    def note_blocked(self, sink: BlockableSink) -> None:
        """Check at each tick whether `sink` is too slow, until `note_unblocked`."""
        self.blocked_sinks.add(sink)

    def note_unblocked(self, sink: BlockableSink) -> None:
        self.blocked_sinks.discard(sink)

    def await_place(self, reader: Reader) -> None:
        """Wake `reader` at the next tick: its wait for a cursor above the top may be over then."""
        self.unplaced_readers.append(reader)

    def admit(self, connection: Connection, transport: str) -> None:
        """Register a connection: it is counted, rotated at its age, and broken off by a drain.

        The age is random, so that connections that opened together close at different times.

        Args:
            transport: label of the metrics.
        """
        age_s = self.settings.connection_age_s * random.uniform(*AGE_SHARE)
        self.connections[connection] = ConnectionRecord(transport, self.now() + age_s)

    def dismiss(self, connection: Connection) -> None:
        """Remove a registered connection, and its heartbeats."""
        self.connections.pop(connection, None)
        self.heartbeats.remove(connection)

    # Stopping

    async def drain(self, within_s: float) -> None:
        """Take no further readers, and break off the present ones, spread over `within_s`, s."""
        self.is_draining = True
        await break_off_all(self.connections, within_s)

    def statistics(self) -> HubStatistics:
        """Return the present figures of the hub."""
        return statistics_of(self)
