"""When to come back, over which transport, and when a connection is dead. Without I/O; seconds.

Full jitter: each wait is random between 0 and a ceiling that doubles, so that the readers of a dead
node come back spread over time. The ceiling falls back only after real progress (a new event): a
server that accepts connections and breaks them does not get a storm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

FIRST_S = 0.75
SHORT_OUTAGE_S = 5.0  # the ceiling in the first seconds of an outage
CEILING_S = 30.0
RETRY_AFTER_MAX_S = 60.0
HEARTBEAT_DEFAULT_S = 15.0
HEARTBEAT_MAX_S = 600.0
GRACE_S = 1.0
POLL_WAIT_MAX_S = 20.0
STEP_MAX_S = 300.0  # a longer time between two tries is no outage: the machine has slept
LEFT_FOR_S = 300.0  # how long a blocked transport is left
AUTO = ("websocket", "sse", "poll")
NAMES = ("websocket", "sse", "ndjson", "poll")


class BackOff:
    """The pauses of one reader, or of one repeated request."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._tries = 0
        self._outage_s = 0.0
        self._counted_at: float | None = None

    def progress(self) -> None:
        """A new event has arrived."""
        self._tries = 0
        self.alive()

    def alive(self) -> None:
        """A connection shows signs of life: the outage is over, and the ceiling stays."""
        self._outage_s = 0.0
        self._counted_at = None

    def outage_s(self, now: float) -> float:
        """Return how long there has been no connection, as far as the machine was awake."""
        step_s = now - self._counted_at if self._counted_at is not None else 0.0
        if 0 < step_s < STEP_MAX_S:
            self._outage_s += step_s
        self._counted_at = now
        return self._outage_s

    def next(self, now: float, retry_after_s: float = 0.0) -> float:
        """Return the pause before the next connection."""
        limit = max(SHORT_OUTAGE_S, self.outage_s(now))
        ceiling = min(FIRST_S * 2.0 ** min(self._tries, 16), limit, CEILING_S)
        self._tries += 1
        return min(retry_after_s, RETRY_AFTER_MAX_S) + self._random() * float(ceiling)


class Heartbeat:
    """The heartbeat of the server, as far as it is known."""

    def __init__(self) -> None:
        self.seconds = HEARTBEAT_DEFAULT_S

    def announced(self, value: object) -> None:
        """Take the value of `X-Heartbeat-S` or of a frame `hello`; any other value is ignored."""
        try:
            seconds = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return
        if seconds > 0:
            self.seconds = min(seconds, HEARTBEAT_MAX_S)

    @property
    def silence_max_s(self) -> float:
        """After such a silence two heartbeats are missing, and the connection is dead."""
        return 2 * self.seconds + GRACE_S

    @property
    def poll_wait_s(self) -> float:
        return min(POLL_WAIT_MAX_S, self.seconds)


class Picker:
    """Which transport comes next. All answers of a client share one picker.

    A transport on which nothing arrived is left for a while. When all have failed, the network is
    away and no transport is to blame: the first one is tried again.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._left_until: dict[str, float] = {}

    def over_http(self) -> Picker:
        """Return a picker of the transports over HTTP, for a log that no socket serves."""
        names = tuple(name for name in self._names if name != "websocket")
        return Picker(names or ("sse", "poll"))

    def pick(self, now: float) -> str:
        for name in self._names:
            if self._left_until.get(name, 0.0) <= now:
                return name
        self._left_until.clear()
        return self._names[0]

    def leave(self, name: str, now: float) -> None:
        """Nothing arrived through this transport, or it holds events back."""
        if len(self._names) > 1:
            self._left_until[name] = now + LEFT_FOR_S
