"""The limit on a node's open connections, and which connection is closed at the limit.

Each connection is an open file, and a process has a limit of open files. A node without a free
file cannot accept a connection: the kernel's queue fills, and requests get no answer. So this
limit is below the process's own limit. At the limit, a new connection takes the place of the
connection that has been idle for longest. A connection is idle while no request is under way on
it: before and during the first request head, between two requests, and after the last answer.
Without an idle connection, the new connection is refused with 503.

`TAILRACE_ADDRESS_CONNECTIONS_MAX` adds a limit for each address: on its connections, or, behind a
trusted proxy, on its requests under way.

Invariants: every idle connection is open; the idle connections are in the order in which they
became idle, the first one is the next to be closed. Decides without I/O: `evict` closes. Knows
nothing of HTTP.
"""

from __future__ import annotations

import logging
import resource
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Protocol

from api.errors import RETRY_AFTER_S, request_error
from api.transport.peer import Headers, TrustedProxies
from shared.errors import RequestError

logger = logging.getLogger(__name__)

# Open files that are not connections of clients: to Redis, uploads and downloads, the listener.
RESERVED_FILES_MAX = 512
RESERVED_FILES_SHARE = 0.3  # of the process's open files, where the process may have few
LOG_INTERVAL_S = 60.0
UNLIMITED = 2**31


class EvictableConnection(Protocol):
    """A connection that `ConnectionLimit` can close."""

    def evict(self) -> None:
        """Close the connection at once."""
        ...


def process_connections_max() -> int:
    """Return how many connections the process's limit of open files leaves room for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return UNLIMITED
    return files - min(RESERVED_FILES_MAX, int(files * RESERVED_FILES_SHARE))


class ConnectionLimit:
    """All connections of one node.

    Args:
        connections_max: the limit on open connections.
        now: the time, s.
        peers: the trusted proxies.
        address_max: the limit for one address; 0: no limit for an address.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        now: Callable[[], float],
        peers: TrustedProxies | None = None,
        address_max: int = 0,
    ) -> None:
        self.peers = TrustedProxies() if peers is None else peers
        self._connections_max = connections_max
        self._now = now
        self._address_max = address_max
        # With the address whose count includes the connection.
        self._open: dict[EvictableConnection, str | None] = {}
        self._idle: OrderedDict[EvictableConnection, None] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._closed = self._refused = 0  # since the last line in the log
        self._next_log_s = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: EvictableConnection, host: str | None) -> RequestError | None:
        """Add a new connection, which is idle; at the limit, close the longest idle connection.

        A refused connection is added, too: it stays open until the peer has read the refusal.

        Args:
            host: the peer's address; None: the peer has no address.

        Returns:
            The error with which the caller refuses the connection: 503 `unavailable`, no idle
            connection could be closed; 429 `rate_limited`, the address is at its limit. None: the
            connection is accepted.
        """
        is_full = len(self._open) >= self._connections_max and not self._evict_longest_idle()
        address = self.peers.limited_address(host, ())
        is_counted = address is None or self.acquire(address)
        self._open[connection] = address if is_counted else None
        self._idle[connection] = None
        if is_full:
            self._refused += 1
            self._log()
            return request_error(
                "unavailable",
                "this node has no room for one more connection: ask again, or another node",
                retry_after_s=RETRY_AFTER_S,
            )
        return None if is_counted else address_limit_error()

    def _evict_longest_idle(self) -> bool:
        """Close the longest idle connection; return whether there was an idle connection."""
        if not self._idle:
            return False
        connection = next(iter(self._idle))
        self.remove(connection)
        connection.evict()
        self._closed += 1
        self._log()
        return True

    def replace(self, old: EvictableConnection, new: EvictableConnection) -> None:
        """Replace the protocol object of a connection after an upgrade; `new` is not idle."""
        self._idle.pop(old, None)
        if old in self._open:
            self._open[new] = self._open.pop(old)

    def remove(self, connection: EvictableConnection) -> None:
        """Remove a closed connection. Removing an unknown connection does nothing."""
        self._idle.pop(connection, None)
        if address := self._open.pop(connection, None):
            self.release(address)

    def mark_idle(self, connection: EvictableConnection) -> None:
        """Note that no request is under way on the connection any more."""
        if connection in self._open:
            self._idle[connection] = None
            self._idle.move_to_end(connection)

    def mark_busy(self, connection: EvictableConnection) -> None:
        """Note that a request is under way on the connection."""
        self._idle.pop(connection, None)

    # Counts for each address: connections, or requests through trusted proxies

    def forwarded_address(self, host: str | None, headers: Headers) -> str | None:
        """Return the address whose count includes a request through a trusted proxy.

        Returns:
            None: the peer is not a trusted proxy, or there is no limit for the address.
        """
        if not self._address_max or not self.peers.is_trusted(host):
            return None
        return self.peers.limited_address(host, headers)

    def acquire(self, address: str) -> bool:
        """Add 1 to the count of `address`; return False, and add nothing, at its limit."""
        if not self._address_max:
            return True
        if self._counts[address] >= self._address_max:
            return False
        self._counts[address] += 1
        return True

    def release(self, address: str) -> None:
        """Subtract 1 from the count of `address`. At 0 this does nothing."""
        self._counts[address] -= 1
        if self._counts[address] <= 0:
            del self._counts[address]

    def _log(self) -> None:
        now_s = self._now()
        if now_s < self._next_log_s:
            return
        self._next_log_s = now_s + LOG_INTERVAL_S
        counts = {"open": len(self._open), "closed": self._closed, "refused": self._refused}
        self._closed = self._refused = 0
        logger.warning("connections full", extra=counts)


def address_limit_error() -> RequestError:
    """Return the 429 error for an address at its limit."""
    return request_error(
        "rate_limited",
        "too many connections from this address: close some, or raise "
        "TAILRACE_ADDRESS_CONNECTIONS_MAX",
        retry_after_s=RETRY_AFTER_S,
    )


# The default of a protocol that was created without a limit.
NO_LIMIT = ConnectionLimit(connections_max=UNLIMITED, now=time.monotonic)
