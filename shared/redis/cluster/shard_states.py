"""Which masters of a cluster answer now, as far as this process knows. Pure.

A shard is *away* from the moment when its master did not answer a PING in time, until it answers
one again or another server has its slots. Calls for a shard that is away fail at once, so that the
calls of other shards beside them do not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shared.config.redis_hosts import HostPort


@dataclass(slots=True)
class ShardState:
    """The state of one master, as this process knows it.

    Attributes:
        is_away: the last PING had no answer.
        back_at_s: when it last answered again after it had been away, or when another server took
            over its slots, loop time; None: it was never away.
        ping_s: how long the last answered PING took, s.
        errors: exchanges with it that got no answer.
    """

    is_away: bool = False
    back_at_s: float | None = None
    ping_s: float = 0.0
    errors: int = 0


class ShardStates:
    """The states of all masters.

    Attributes:
        by_address: each master that had a slot when the map was last compared. Nothing is recorded
            of other servers: a former master may be called for a moment longer.
    """

    def __init__(self) -> None:
        self.by_address: dict[HostPort, ShardState] = {}
        self._away: set[HostPort] = set()
        self._drops: list[Callable[[HostPort], None]] = []

    def is_away(self, address: HostPort) -> bool:
        return address in self._away

    @property
    def has_away(self) -> bool:
        return bool(self._away)

    @property
    def serving(self) -> int:
        """The number of masters that answer."""
        return sum(not state.is_away for state in self.by_address.values())

    def back_at_s(self, address: HostPort) -> float | None:
        """Return when this master came back, or took over from one that was away, loop time."""
        state = self.by_address.get(address)
        return None if state is None else state.back_at_s

    def on_away(self, drop: Callable[[HostPort], None]) -> Callable[[], None]:
        """Call `drop` with each master that goes away. Returns a function that ends this."""
        self._drops.append(drop)
        return lambda: self._drops.remove(drop)

    def compare(self, masters: Iterable[HostPort], now_s: float) -> None:
        """Take note of the masters that have slots now."""
        known = set(masters)
        had_loss = any(address not in known for address in self._away)
        for address in known - self.by_address.keys():
            self.by_address[address] = ShardState(back_at_s=now_s if had_loss else None)
        for address in self.by_address.keys() - known:
            del self.by_address[address]
            self._away.discard(address)

    def note_answer(self, address: HostPort, ping_s: float, now_s: float) -> bool:
        """Record an answered PING. Return whether the master was away."""
        if (state := self.by_address.get(address)) is None:
            return False
        state.ping_s = ping_s
        was_away, state.is_away = state.is_away, False
        if was_away:
            state.back_at_s = now_s
            self._away.discard(address)
        return was_away

    def note_away(self, address: HostPort) -> bool:
        """Record a PING without an answer. Return whether the master is newly away."""
        state = self.by_address.get(address)
        if state is None or state.is_away:
            return False
        state.is_away = True
        self._away.add(address)
        for drop in list(self._drops):
            drop(address)
        return True

    def note_error(self, address: HostPort) -> None:
        """Record an exchange without an answer."""
        if (state := self.by_address.get(address)) is not None:
            state.errors += 1
