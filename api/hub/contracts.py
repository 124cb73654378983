"""The types between the parts of the hub, and between the hub and the readers of `api/readers/`.

A reader joins a relay and is woken when there may be something to read. A sink writes bytes in its
turn (api/hub/pump.py). One object is often both a reader and a sink. Readers and sinks have no
task or queue of their own. The hub does not know where a sink's bytes go.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from api.hub.position import Position
from api.hub.pump import Sink
from shared.queue.happenings import Happenings

CUT_IDS_MAX = 3  # generations that are noted of one WebSocket that is cut


class ReadingOutcome(enum.Enum):
    """Why a reading stopped. Only ENDED may look like a complete answer to the client."""

    ENDED = "ended"  # everything was written, `end` last
    LEFT = "left"  # the client closed the connection
    CUT = "cut"  # the client was too slow
    DRAINED = "drained"  # this node stops
    EXPIRED = "expired"  # the credentials of the client have expired
    REVOKED = "revoked"  # the key of the client was removed
    ROTATED = "rotated"  # the connection has reached its age; the client may reconnect elsewhere
    LOST = "lost"  # the log has expired, or the dialect cannot express how the log goes on
    FAILED = "failed"  # a write raised an exception


class Transport(Protocol):
    """The asyncio transport below ASGI, where the server gives access to it."""

    def abort(self) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class Wire(Protocol):
    """A connection that takes bytes directly, past the server's `send`.

    Attributes:
        write: takes all bytes at once and never waits; buffers what the socket does not take.
        is_paused: the buffer is above its limit: write nothing more.
        on_paused, on_resumed: called when `is_paused` becomes true and false. The writer sets them.
    """

    write: Callable[[bytes], None]
    is_paused: bool
    on_paused: Callable[[], None]
    on_resumed: Callable[[], None]

    def release(self) -> None:
        """Drop both callbacks."""
        ...


class DeflateState(Protocol):
    """permessage-deflate on one WebSocket.

    Attributes:
        may_chain: the socket may follow a log whose frames refer to earlier ones.
        is_chained: a reading of the socket follows such a log. The reading sets this; meanwhile the
            server compresses no other message.
    """

    may_chain: bool
    is_chained: bool


class SocketWire(Wire, Protocol):
    """The `Wire` of a WebSocket connection."""

    @property
    def deflate(self) -> DeflateState | None:
        """The state of permessage-deflate; None: it is not negotiated."""
        ...

    @property
    def is_receiving(self) -> bool:
        """Whether a large message of the peer is arriving."""
        ...

    def beat(self) -> None:
        """Send a ping, or close the connection if the last ping has no pong yet."""
        ...


class Reader(Protocol):
    """One reading of one generation.

    Attributes:
        position: the place in the feed of the relay that the reader has joined.
    """

    position: Position

    def wake(self) -> None:
        """Note that there may be something to read. Must be cheap: each change calls it."""
        ...

    def break_off(self, outcome: ReadingOutcome) -> None:
        """Stop reading. A second call does nothing."""
        ...


class BlockableSink(Protocol):
    """A sink whose write is waiting for the client to take bytes."""

    def is_too_slow(self, now: float, bytes_max: int) -> bool:
        """Whether to cut the reader.

        Args:
            now: loop time, s.
            bytes_max: limit of the unsent bytes of one reader.
        """
        ...

    def break_off(self, outcome: ReadingOutcome) -> None: ...

    @property
    def generation_ids(self) -> Iterable[str]:
        """The generations that it reads."""
        ...


class Connection(Protocol):
    """A response, a waiting long poll or a WebSocket: what a drain breaks off."""

    def break_off(self, outcome: ReadingOutcome) -> None: ...


class HeartbeatConnection(Connection, Protocol):
    """A connection that gets a heartbeat when it was sent nothing for a while."""

    def beat(self, now: float, heartbeat_s: float) -> float | None:
        """Send a heartbeat if one is due.

        Args:
            now: loop time, s.
            heartbeat_s: the longest silence, s.

        Returns:
            The loop time of the next call, s; None: no further heartbeats.
        """
        ...


class ConnectionRecord(NamedTuple):
    """The hub's record of one open connection."""

    transport: str  # label of the metrics: "sse", "ndjson", …
    rotate_at: float  # loop time, s, from which the hub breaks the connection off


@dataclass(slots=True)
class HubCounters:
    """Totals since the node started."""

    events_delivered: int = 0  # events, counted once for each reader
    bytes_delivered: int = 0  # bytes, counted once for each reader
    cuts: int = 0  # readers broken off because they were too slow
    rotations: int = 0  # connections broken off at their age
    resumes: int = 0  # streams and socket readings that began at a cursor
    resets: int = 0  # readers that were sent `reset` because their cursor was not in the log
    happenings: Happenings = field(default_factory=Happenings)  # cuts, resumes and resets

    def cut(self, generation_ids: Iterable[str]) -> None:
        """Count a reader that is broken off, because it is too slow."""
        self.cuts += 1
        for generation_id in islice(generation_ids, CUT_IDS_MAX):
            self.happenings.note("cuts", generation_id)

    def resume(self, generation_id: str) -> None:
        """Count a reader that begins at a cursor."""
        self.resumes += 1
        self.happenings.note("resumes", generation_id)

    def reset(self, generation_id: str) -> None:
        """Count a reader whose cursor is not in the log."""
        self.resets += 1
        self.happenings.note("resets", generation_id)


class HubPort(Protocol):
    """The part of a hub that sinks and readers use."""

    counters: HubCounters

    def now(self) -> float:
        """Return loop time, s."""
        ...

    def wake(self, sink: Sink) -> None:
        """Give `sink` a turn soon."""
        ...

    def note_blocked(self, sink: BlockableSink) -> None:
        """Ask `is_too_slow` at each tick, until `note_unblocked`."""
        ...

    def note_unblocked(self, sink: BlockableSink) -> None: ...

    def await_place(self, reader: Reader) -> None:
        """Wake `reader` at the next tick: its wait for a cursor above the top may be over then."""
        ...
