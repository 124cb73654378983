"""Decides which request of a socket runs next.

A socket has streams: the default one, and those that the client names (`stream_id`). The requests
of one stream run one after the other, in their order; those of different streams run at once, up to
a limit. Has no I/O and no clock. Source: docs/dialects/responses-websocket.md.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from api.dialects.responses.frames import SocketError

IN_FLIGHT_MAX = 16  # responses that run at once on one socket
WAITING_MAX = 32  # requests that wait for their stream or for one of these places
NAMES_MAX = 32  # different names of streams on one socket; the default stream has none
DEFAULT = ""  # the name of the default stream

T = TypeVar("T")


class SocketStreams(Generic[T]):
    """The requests of one socket that wait, and the streams that are busy."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, T]] = []  # in the order of arrival
        self._busy: set[str] = set()
        self._names: set[str] = set()

    @property
    def is_idle(self) -> bool:
        return not (self._busy or self._waiting)

    def add(self, name: str, request: T) -> None:
        """Put a request at the end of its stream.

        Raises:
            SocketError: there are too many names or too many requests; nothing was added.
        """
        if name != DEFAULT and name not in self._names and len(self._names) >= NAMES_MAX:
            raise SocketError(
                "websocket_stream_limit_reached",
                f"at most {NAMES_MAX} different values of stream_id on one socket: use one of "
                "them again, or open another socket",
                "stream_id",
            )
        if len(self._waiting) >= WAITING_MAX:
            raise SocketError(
                "rate_limited", f"at most {WAITING_MAX} requests wait on one socket", "", status=429
            )
        if name != DEFAULT:
            self._names.add(name)
        self._waiting.append((name, request))

    def take_ready(self) -> list[T]:
        """Take the requests that may run now; their streams are busy until `finish`."""
        ready: list[T] = []
        waiting, self._waiting = self._waiting, []
        for name, request in waiting:
            if name in self._busy or len(self._busy) >= IN_FLIGHT_MAX:
                self._waiting.append((name, request))
            else:
                self._busy.add(name)
                ready.append(request)
        return ready

    def finish(self, name: str) -> None:
        """Let the next request of a stream run."""
        self._busy.discard(name)

    def clear(self) -> list[T]:
        """Take all requests that wait; none of them will run."""
        waiting, self._waiting = self._waiting, []
        return [request for _, request in waiting]
