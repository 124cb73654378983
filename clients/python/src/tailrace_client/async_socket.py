"""WebSocket, async: one socket carries up to 100 generations."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tailrace_client.async_http import AsyncHttp
from tailrace_client.credentials import Credentials, Token, bearer
from tailrace_client.errors import TailraceError, broken, said
from tailrace_client.events import START_CURSOR, Event
from tailrace_client.options import Shared
from tailrace_client.request import ReadRequest
from tailrace_client.wire import (
    LINE_BYTES_MAX,
    SUBPROTOCOL,
    close_error,
    frame_error,
    frame_event,
    is_at_end,
    parse_frame,
    refusal,
    socket_url,
    subscribe_frame,
)

SUBSCRIPTIONS_MAX = 100
LINGER_S = 1.0  # how long a socket without readers stays open for the next one
INBOX_EVENTS_MAX = 1_000  # that a consumer has not taken: a slower consumer comes back later
INBOX_CHARACTERS_MAX = 8 * 1024 * 1024
CAUGHT_UP = "caught_up"
Item = Event | TailraceError | str  # `str`: CAUGHT_UP


class Inbox:
    """What has arrived for one reader and was not taken yet. Bounded: see `has_room`."""

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._characters = 0
        self._arrived = asyncio.Event()

    def put(self, item: Item, characters: int = 0) -> None:
        self._items.append((item, characters))
        self._characters += characters
        self._arrived.set()

    @property
    def has_room(self) -> bool:
        is_short = len(self._items) < INBOX_EVENTS_MAX
        return is_short and self._characters < INBOX_CHARACTERS_MAX

    async def get(self) -> Item:
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        item, characters = self._items.popleft()
        self._characters -= characters
        return item


class AsyncSockets:
    """The sockets of one client."""

    def __init__(self, shared: Shared, credentials: Credentials, http: AsyncHttp) -> None:
        self._shared = shared
        self._credentials = credentials
        self._http = http
        self._channels: list[_Channel] = []
        self._opening: asyncio.Task[None] | None = None

    async def read(self, asked: ReadRequest) -> AsyncIterator[Event | None]:
        """Yield the events of one subscription, and None for other signs of life."""
        channel = await self._channel(asked.generation_id)
        inbox = channel.subscribe(asked)
        has_events = False
        try:
            await channel.say(subscribe_frame(asked.generation_id, asked.cursor))
            while True:
                item = await inbox.get()
                if isinstance(item, TailraceError):
                    raise item
                if isinstance(item, str):
                    yield None
                    if not has_events and asked.cursor != START_CURSOR:
                        # Frames do not say that the cursor is the end.
                        snapshot = await self._http.json("GET", asked.path)
                        if is_at_end(snapshot, asked.cursor):
                            asked.reading.is_over = True
                            return
                    continue
                has_events = True
                yield item
                if item.type == "end":
                    return
        finally:
            await channel.unsubscribe(asked)

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for channel in self._channels:
            await channel.close()

    async def _channel(self, generation_id: str) -> _Channel:
        while True:
            self._channels = [each for each in self._channels if not each.is_closed]
            for each in self._channels:
                if each.takes(generation_id):
                    return each
            if self._opening is None:
                self._opening = asyncio.create_task(self._open_one())
                self._opening.add_done_callback(_seen)
            # All waiting readers share one try and its error. A cancelled reader does not end it.
            await asyncio.shield(self._opening)

    async def _open_one(self) -> None:
        """Open a socket. A reader never finds this task done: it would loop without a pause."""
        try:
            channel = await self._open()
            # After the wait: the readers put another list in the place of this one meanwhile.
            self._channels.append(channel)
        finally:
            self._opening = None

    async def _open(self) -> _Channel:
        token = await self._credentials.token_async()
        try:
            connection = await connect(
                socket_url(self._shared.base),
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=bearer(token),
                open_timeout=self._shared.open_s,
                close_timeout=1,
                ping_interval=None,  # the frames `ping` are answered by the node, not by a proxy
                proxy=None if self._shared.is_near else True,
                max_size=LINE_BYTES_MAX,
            )
        except InvalidStatus as exc:
            response = exc.response
            retry_after = response.headers.get("retry-after")
            error = refusal(response.status_code, bytes(response.body or b""), retry_after)
            if response.status_code == 401:
                error.retryable = self._credentials.refused(token)
            raise error from exc
        except (OSError, TimeoutError, WebSocketException) as exc:
            raise broken(f"no WebSocket: {said(exc)}") from exc
        return _Channel(self._shared, self._credentials, connection, token)


def _seen(task: asyncio.Task[None]) -> None:
    """Look at the error of a try for which no reader waits any more."""
    if not task.cancelled():
        task.exception()


class _Channel:
    """One open socket. A task of its own reads its frames."""

    def __init__(
        self, shared: Shared, credentials: Credentials, connection: ClientConnection, token: Token
    ) -> None:
        self.is_closed = False
        self._shared = shared
        self._credentials = credentials
        self._connection = connection
        self._token = token
        self._inboxes: dict[str, Inbox] = {}
        # Generations that were read here and left: late frames would be joined to a new reading.
        self._left: set[str] = set()
        self._task = asyncio.create_task(self._run())

    def takes(self, generation_id: str) -> bool:
        is_known = generation_id in self._inboxes or generation_id in self._left
        return not self.is_closed and not is_known and len(self._inboxes) < SUBSCRIPTIONS_MAX

    def subscribe(self, asked: ReadRequest) -> Inbox:
        inbox = self._inboxes[asked.generation_id] = Inbox()
        return inbox

    async def unsubscribe(self, asked: ReadRequest) -> None:
        if self._inboxes.pop(asked.generation_id, None) is None or self.is_closed:
            return
        if asked.reading.end is None:
            await self._leave(asked.generation_id)

    async def _leave(self, generation_id: str) -> None:
        self._left.add(generation_id)
        with contextlib.suppress(TailraceError):
            await self.say(json.dumps({"type": "unsubscribe", "id": generation_id}))

    async def say(self, frame: str) -> None:
        try:
            await self._connection.send(frame)
        except ConnectionClosed as exc:
            raise broken(f"the socket is closed: {said(exc)}") from exc

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        error = broken("the client was closed")
        try:
            await self.say(json.dumps({"type": "hello"}))
            error = await self._read()
        except TailraceError as exc:
            error = exc
        finally:
            self.is_closed = True
            for inbox in self._inboxes.values():
                inbox.put(error)
            self._inboxes.clear()
            self._connection.transport.abort() if error.code == "stalled" else None
            await self._connection.close()

    async def _read(self) -> TailraceError:
        """Deliver frames until the socket is of no more use; return why."""
        heartbeat, now = self._shared.heartbeat, self._shared.now
        heard_at, idle_since, refused = now(), now(), None
        while True:
            wait_s = heartbeat.seconds if self._inboxes else min(heartbeat.seconds, LINGER_S)
            try:
                async with asyncio.timeout(wait_s):
                    text = await self._connection.recv()
            except TimeoutError:
                if not self._inboxes and now() - idle_since >= LINGER_S:
                    return broken("nobody reads")
                if now() - heard_at > heartbeat.silence_max_s:
                    message = f"nothing arrived for {now() - heard_at:.1f} s"
                    return TailraceError("stalled", message, retryable=True)
                await self.say('{"type":"ping"}')
                continue
            except ConnectionClosed as exc:
                return refused or self._closed(exc.rcvd.code if exc.rcvd else None)
            heard_at = now()
            idle_since = heard_at if self._inboxes else idle_since
            frame = parse_frame(text)
            refused = self._take(frame, len(text)) or refused
            generation_id = str(frame.get("id"))
            inbox = self._inboxes.get(generation_id)
            if inbox is not None and not inbox.has_room:
                # Its consumer takes what is here, and then comes back at its cursor.
                self._inboxes.pop(generation_id).put(broken("the consumer is slow"))
                await self._leave(generation_id)

    def _take(self, frame: dict[str, Any], characters: int) -> TailraceError | None:
        """Deliver a frame; return the error of the whole socket, if the frame is one."""
        kind, inbox = frame.get("type"), self._inboxes.get(str(frame.get("id")))
        self._credentials.accepted()
        if kind == "hello":
            self._shared.heartbeat.announced(frame.get("heartbeat_s"))
        elif kind == "error":
            error = frame_error(frame)
            if inbox is not None:
                inbox.put(error)
            # A node that is older than `hello` answers it with this code.
            elif "id" not in frame and error.code != "invalid_request":
                return error
        elif inbox is not None and kind == CAUGHT_UP:
            inbox.put(CAUGHT_UP)
        elif inbox is not None and (event := frame_event(frame)) is not None:
            inbox.put(event, characters)
        return None

    def _closed(self, code: int | None) -> TailraceError:
        error = close_error(code)
        if error.code == "unauthorized":
            error.retryable = self._credentials.refused(self._token)
        return error
