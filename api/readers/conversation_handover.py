"""A conversation whose handler has gone: it has a task only while its client is being answered.

The server hands the socket over (`tailrace.handover`, api/transport/websocket.py): its handler
returns, and with it go the tasks, the scope and all frames between the server and here, which is
most of what an idle socket would weigh. A message starts a task that reads until nothing waits any
more; the end of the sending side starts the closing. Invariants: one task reads at a time, in the
order of what came; nothing is read once the socket is over; what `Conversation.hold` would do at
the end is done once; each task belongs to the hub, which keeps it and logs what it raises. Knows
nothing of what is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from starlette.types import Message, Receive, Send

from api.errors import CODES
from api.hub.hub import Hub
from api.readers.websocket_sender import Socket

logger = logging.getLogger(__name__)


class HandedSocket(Protocol):
    """An accepted socket that was handed over.

    Attributes:
        is_waiting: `receive` has something, and would not wait.
    """

    receive: Receive
    send: Send

    @property
    def is_waiting(self) -> bool: ...

    def leave(self) -> None:
        """The conversation is over, as if its handler had returned."""
        ...

    def abort(self) -> None: ...


class HandedConversation(Protocol):
    """The conversation that is handed over (api/readers/conversation.py)."""

    hub: Hub
    socket: Socket

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def send_through(self, send: Send) -> None: ...

    async def hear(self, message: Message) -> bool:
        """Take one message of the client's; False: nothing more is to be read."""
        ...

    async def close(self, code: int, receive: Receive) -> None: ...


HandOver = Callable[[Callable[[], None]], HandedSocket]


class ConversationHandover:
    """One conversation that goes on by itself.

    Args:
        path: of the route, for the log.
        hand_over: takes what is to be called when something was received; returns the line.
    """

    __slots__ = ("_conversation", "_hears", "_line", "_path", "_reading")

    def __init__(self, conversation: HandedConversation, path: str, hand_over: HandOver) -> None:
        self._conversation = conversation
        self._path = path
        self._hears = True
        self._reading: asyncio.Task[None] | None = None
        conversation.enter()
        conversation.socket.done.add_done_callback(self._over)
        self._line = hand_over(self._received)
        conversation.send_through(self._line.send)
        self._received()

    def _received(self) -> None:
        if self._reading is None and self._hears and self._line.is_waiting:
            # The hub's: nothing else need refer to a task that waits, and one that nobody refers
            # to may be collected. None: the hub has closed, and its sockets are being cut.
            self._reading = self._conversation.hub.spawn(self._read())

    async def _read(self) -> None:
        try:
            while self._hears and self._line.is_waiting:
                self._hears = await self._conversation.hear(await self._line.receive())
        except Exception:  # as the error boundary of a handler would
            logger.exception("request failed", extra={"path": self._path})
            self._conversation.socket.close(CODES["internal"].close)
            self._hears = False
        finally:
            self._reading = None

    def _over(self, done: asyncio.Future[int]) -> None:
        self._hears = False
        if not self._conversation.hub.spawn(self._close(done.result())):
            self._line.abort()  # the hub has been closed around it
            self._leave()

    async def _close(self, code: int) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        try:
            await self._conversation.close(code, self._line.receive)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._conversation.leave()
        self._line.leave()
