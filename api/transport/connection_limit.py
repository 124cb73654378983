"""The open connections of a node: how many there may be, and which one goes when there are more.

Each connection is an open file, and a process has so many. A node without a free one cannot accept
anybody: the kernel's queue fills, and a request with a key is not answered. So there is a bound
below the process's own, and at the bound each new connection takes the place of the one that has
been idle for longest. Idle means that no request is under way on it: a connection that has sent
nothing or half a head, one between two requests, one whose last answer was said. Where nobody is
idle, the new connection is refused with 503.

An address may have a bound of its own (`TAILRACE_ADDRESS_CONNECTIONS_MAX`): on its connections, or,
behind a trusted proxy, on its requests under way.

Invariants: who is idle is open; the longest idle comes first. Decides without I/O: who loses a
place is told so by `evict`. Knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Protocol

from api.errors import RETRY_AFTER_S, request_error
from api.transport.peer import Headers, Peers
from shared.errors import RequestError

logger = logging.getLogger(__name__)

# Open files that are no connections of clients: Redis's, uploads and downloads, the listener.
RESERVE_MAX = 512
RESERVE_SHARE = 0.3  # of all, where a process may have few
LOG_EVERY_S = 60.0
ANY_NUMBER = 2**31


class Connection(Protocol):
    def evict(self) -> None:
        """Close at once."""
        ...


def room_of_process() -> int:
    """Return how many connections this process has open files for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return ANY_NUMBER
    return files - min(RESERVE_MAX, int(files * RESERVE_SHARE))


class Crowd:
    """All connections of one node.

    Args:
        room: how many there may be.
        peers: who is a trusted proxy.
        address_max: how many of one address; 0: as many as there is room for.
        now: the time, s.
    """

    def __init__(
        self,
        *,
        room: int,
        now: Callable[[], float],
        peers: Peers | None = None,
        address_max: int = 0,
    ) -> None:
        self.peers = Peers() if peers is None else peers
        self._room = room
        self._now = now
        self._address_max = address_max
        self._open: dict[Connection, str | None] = {}  # with the address that it counts for
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._closed = self._refused = 0  # since the last line in the log
        self._quiet_until_s = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection, host: str | None) -> RequestError | None:
        """Take in a new connection, idle from now on; return why it must be refused, if it must.

        One that is refused is taken in all the same: it stays until its answer is read.

        Args:
            host: the peer's address; None: it has none.
        """
        is_full = len(self._open) >= self._room and not self._close_longest_idle()
        address = self.peers.limited(host, ())
        has_turn = address is None or self.take(address)
        self._open[connection] = address if has_turn else None
        self._idle[connection] = None
        if is_full:
            self._refused += 1
            self._say()
            return request_error(
                "unavailable",
                "this node has no room for one more connection: ask again, or another node",
                retry_after_s=RETRY_AFTER_S,
            )
        return None if has_turn else too_many()

    def _close_longest_idle(self) -> bool:
        if not self._idle:
            return False
        longest = next(iter(self._idle))
        self.leave(longest)
        longest.evict()
        self._closed += 1
        self._say()
        return True

    def replace(self, old: Connection, new: Connection) -> None:
        """Go on with `new` for the same connection: it speaks another protocol, and is not idle."""
        self._idle.pop(old, None)
        if old in self._open:
            self._open[new] = self._open.pop(old)

    def leave(self, connection: Connection) -> None:
        """Forget a connection; one that is not there is no error."""
        self._idle.pop(connection, None)
        if address := self._open.pop(connection, None):
            self.give_back(address)

    def rest(self, connection: Connection) -> None:
        """No request is under way on it, from now on."""
        if connection in self._open:
            self._idle[connection] = None
            self._idle.move_to_end(connection)

    def work(self, connection: Connection) -> None:
        """A request is under way on it."""
        self._idle.pop(connection, None)

    # What one address has: connections of its own, or requests through trusted proxies

    def forwarded(self, host: str | None, headers: Headers) -> str | None:
        """Return the address that a request through a trusted proxy counts for; None: none."""
        if not self._address_max or not self.peers.is_trusted(host):
            return None
        return self.peers.limited(host, headers)

    def take(self, address: str) -> bool:
        """Count one more of this address, if it may have one."""
        if not self._address_max:
            return True
        if self._counts[address] >= self._address_max:
            return False
        self._counts[address] += 1
        return True

    def give_back(self, address: str) -> None:
        """Count one less; of an address that has none it is no error."""
        self._counts[address] -= 1
        if self._counts[address] <= 0:
            del self._counts[address]

    def _say(self) -> None:
        now_s = self._now()
        if now_s < self._quiet_until_s:
            return
        self._quiet_until_s = now_s + LOG_EVERY_S
        counted = {"open": len(self._open), "closed": self._closed, "refused": self._refused}
        self._closed = self._refused = 0
        logger.warning("connections full", extra=counted)


def too_many() -> RequestError:
    """Return the error of an address that has as many connections as it may."""
    return request_error(
        "rate_limited",
        "too many connections from this address: close some, or raise "
        "TAILRACE_ADDRESS_CONNECTIONS_MAX",
        retry_after_s=RETRY_AFTER_S,
    )


# Of a protocol that nobody gave a crowd: it takes in everybody.
UNBOUNDED = Crowd(room=ANY_NUMBER, now=time.monotonic)
