"""A conversation whose ASGI handler has returned: it has a task only while it serves messages.

The server hands the socket over (`tailrace.handover`, api/transport/websocket.py). The handler
returns, which frees its tasks, the scope and all stack frames between the server and the handler:
most of the memory of an idle socket. A message starts a task, which reads until no message waits.
The end of the sending side starts a task that closes.

Invariants: one task reads at a time, in the order of arrival; nothing is read after the socket has
ended; the end is done once, as `Conversation.hold` would do it; each task belongs to the hub, which
keeps a reference to it and logs its exceptions. This module does not know what the frames mean.
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
    """An accepted socket that the server has handed over.

    Attributes:
        has_message: `receive` has a message and would return at once.
    """

    receive: Receive
    send: Send

    @property
    def has_message(self) -> bool: ...

    def leave(self) -> None:
        """End the conversation, as the return of a handler would."""
        ...

    def abort(self) -> None: ...


class HandedConversation(Protocol):
    """A conversation that can be handed over (api/readers/conversation.py)."""

    hub: Hub
    socket: Socket

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def send_through(self, send: Send) -> None: ...

    async def hear(self, message: Message) -> bool:
        """Serve one message of the client; False: read no further message."""
        ...

    async def close(self, code: int, receive: Receive) -> None: ...


HandOver = Callable[[Callable[[], None]], HandedSocket]


class ConversationHandover:
    """One conversation that goes on without its handler.

    Args:
        path: the path of the route, for the log.
        hand_over: the server's extension. It takes a callback for "a message was received", and
            returns the socket.
    """

    __slots__ = ("_conversation", "_is_reading_on", "_path", "_reading", "_socket")

    def __init__(self, conversation: HandedConversation, path: str, hand_over: HandOver) -> None:
        self._conversation = conversation
        self._path = path
        self._is_reading_on = True
        self._reading: asyncio.Task[None] | None = None
        conversation.enter()
        conversation.socket.done.add_done_callback(self._over)
        self._socket = hand_over(self._received)
        conversation.send_through(self._socket.send)
        self._received()

    def _received(self) -> None:
        if self._reading is None and self._is_reading_on and self._socket.has_message:
            # The hub keeps a reference: a waiting task that nothing refers to may be garbage
            # collected. None: the hub is closed, and it breaks off its sockets.
            self._reading = self._conversation.hub.spawn(self._read())

    async def _read(self) -> None:
        try:
            while self._is_reading_on and self._socket.has_message:
                self._is_reading_on = await self._conversation.hear(await self._socket.receive())
        except Exception:  # this replaces the error boundary of a handler
            logger.exception("request failed", extra={"path": self._path})
            self._conversation.socket.close(CODES["internal"].close)
            self._is_reading_on = False
        finally:
            self._reading = None

    def _over(self, done: asyncio.Future[int]) -> None:
        self._is_reading_on = False
        if not self._conversation.hub.spawn(self._close(done.result())):
            self._socket.abort()  # the hub is closed and runs no further task
            self._leave()

    async def _close(self, code: int) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        try:
            await self._conversation.close(code, self._socket.receive)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._conversation.leave()
        self._socket.leave()
