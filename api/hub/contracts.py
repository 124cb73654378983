"""What the parts of the hub know of one another: readers, their way out, and what serves them.

A reader is placed in a relay and is woken when there may be something for it. It owns no task and
no queue; where its bytes go is its own affair.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from api.hub.position import Position
from api.hub.pump import Sink


class Outcome(enum.Enum):
    """How a reading stopped."""

    ENDED = "ended"  # all was written, `end` last: the only one that may look clean
    LEFT = "left"  # the reader went away
    CUT = "cut"  # too slow
    DRAINED = "drained"  # this node stops
    ROTATED = "rotated"  # has been connected for long enough: comes back where there is room
    LOST = "lost"  # the log cannot be continued for this reader
    FAILED = "failed"  # writing raised


class Transport(Protocol):
    """The connection below ASGI, where the server hands it out."""

    def abort(self) -> None: ...

    def get_write_buffer_size(self) -> int: ...


class Wire(Protocol):
    """A connection that bytes are written to directly, below the server's `send`.

    Attributes:
        write: takes all bytes at once and never waits; what the socket does not take is kept.
        is_paused: more is kept than should be: write nothing further.
        on_paused, on_resumed: called when that begins and ends; whoever writes sets them.
    """

    write: Callable[[bytes], None]
    is_paused: bool
    on_paused: Callable[[], None]
    on_resumed: Callable[[], None]

    def release(self) -> None:
        """Forget both."""
        ...


class SocketWire(Wire, Protocol):
    """The same of a WebSocket."""

    def beat(self) -> None:
        """Ping, once a heartbeat, or close if the last ping got no pong."""
        ...


class Reader(Protocol):
    """One reading of one generation."""

    position: Position

    def wake(self) -> None:
        """There may be something to read. Called for every change: must be cheap."""
        ...

    def break_off(self, outcome: Outcome) -> None:
        """Stop reading. May be repeated."""
        ...


class Slowable(Protocol):
    """A sink whose write waits."""

    def is_too_slow(self, now: float, bytes_max: int) -> bool: ...

    def break_off(self, outcome: Outcome) -> None: ...


class Connection(Protocol):
    """What a drain breaks off: a response, a waiting poll, a socket."""

    def break_off(self, outcome: Outcome) -> None: ...


class Beating(Connection, Protocol):
    """A connection that wants a sign of life when it was sent nothing for a while."""

    def beat(self, now: float, heartbeat_s: float) -> float | None:
        """Send a heartbeat if one is due; return when to ask again, None: never."""
        ...


class Stay(NamedTuple):
    """One connection's time at this node."""

    transport: str
    until: float  # the hub's clock


@dataclass(slots=True)
class Counters:
    """Since the node started."""

    events_delivered: int = 0
    bytes_delivered: int = 0
    cuts: int = 0
    rotations: int = 0
    resets: int = 0


class Port(Protocol):
    """What the hub does for sinks."""

    counters: Counters

    def now(self) -> float: ...

    def wake(self, sink: Sink) -> None: ...

    def note_blocked(self, sink: Slowable) -> None: ...

    def note_unblocked(self, sink: Slowable) -> None: ...

    def await_place(self, reader: Reader) -> None:
        """Wake this reader a little later again: its place may be decided by time alone."""
        ...
