"""The decisions of one reader over many connections: which transport next, and after which pause.

Without I/O: the clients open the connections, pass on what these deliver, and wait.
"""

from __future__ import annotations

from tailrace_client.errors import TailraceError, broken
from tailrace_client.events import Event
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff, Picker
from tailrace_client.reading import Reading
from tailrace_client.request import ReadRequest
from tailrace_client.wire import generation_path


class Following:
    """One reader.

    Args:
        path: of the log; empty: that of the generation.
        picker: chooses the transports; None: the client's.

    Attributes:
        transport: of the present connection.
    """

    def __init__(
        self, shared: Shared, id: str, reading: Reading, *, path: str, picker: Picker | None
    ) -> None:
        self.transport = ""
        self._shared = shared
        self._id = id
        self._reading = reading
        self._path = path or generation_path(id)
        self._picker = picker or shared.picker
        self._back_off = BackOff(shared.random)
        self._has_lived = False

    def connect(self) -> ReadRequest:
        """Choose the transport of the next connection, and return what it has to ask."""
        self.transport = self._picker.pick(self._shared.now())
        self._has_lived = False
        return ReadRequest(self._id, self._path, self._reading, self._reading.cursor)

    def take(self, item: Event | None) -> bool:
        """Take what a connection has delivered; return whether it is a new event.

        Args:
            item: None: a sign of life.
        """
        self._has_lived = True
        self._back_off.alive()
        if item is None or not self._reading.accept(item):
            return False
        self._back_off.progress()
        return True

    def pause_s(self, error: TailraceError | None, *, is_held_back: bool = False) -> float:
        """Return the pause before the next connection; 0: another transport comes at once.

        Args:
            error: of the connection; None: it ended without one.
            is_held_back: another transport has what this one does not deliver.

        Raises:
            TailraceError: `error`, which no other connection helps; `gave_up`.
        """
        shared = self._shared
        error = error or broken("the connection ended before the answer")
        is_blocked = is_held_back or (shared.is_auto and error.code == "upgrade_required")
        if not error.retryable and not is_blocked:
            raise error
        if is_blocked or not self._has_lived:
            self._picker.leave(self.transport, shared.now())
        return 0.0 if is_blocked else shared.reconnect_s(self._back_off, error)
