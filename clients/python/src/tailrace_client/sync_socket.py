"""WebSocket for a client without an event loop: one socket for each reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tailrace_client.credentials import Credentials, Token, bearer
from tailrace_client.errors import TailraceError, broken, said
from tailrace_client.events import START_CURSOR, Event
from tailrace_client.options import Shared
from tailrace_client.request import ReadRequest
from tailrace_client.sync_http import Http
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


class Sockets:
    """Opens the sockets of one client."""

    def __init__(self, shared: Shared, credentials: Credentials, http: Http) -> None:
        self._shared = shared
        self._credentials = credentials
        self._http = http

    def read(self, asked: ReadRequest) -> Iterator[Event | None]:
        """Yield the events of one subscription, and None for other signs of life."""
        token = self._credentials.token()
        has_events, refused = False, None
        with self._open(token) as connection:
            try:
                connection.send('{"type":"hello"}')
                connection.send(subscribe_frame(asked.generation_id, asked.cursor))
                for frame in self._frames(connection):
                    yield None
                    kind = frame.get("type")
                    if kind == "hello":
                        self._shared.heartbeat.announced(frame.get("heartbeat_s"))
                    elif kind == "error":
                        refused = self._refusal(frame, token) or refused
                    elif kind == "caught_up" and not has_events and asked.cursor != START_CURSOR:
                        # Frames do not say that the cursor is the end.
                        if is_at_end(self._http.json("GET", asked.path), asked.cursor):
                            asked.reading.is_over = True
                            return
                    elif (event := frame_event(frame)) is not None:
                        has_events = True
                        yield event
                        if event.type == "end":
                            return
            except ConnectionClosed as exc:
                error = refused or close_error(exc.rcvd.code if exc.rcvd else None)
                if error.code == "unauthorized":
                    error.retryable = self._credentials.refused(token)
                raise error from exc

    def _refusal(self, frame: dict[str, object], token: Token) -> TailraceError | None:
        """Return the error of the whole socket, which the node closes; raise one of the reading.

        `token_expired` comes a minute before the close, and the events come until then.
        """
        error = frame_error(frame)
        if "id" in frame:
            if error.code == "unauthorized":
                error.retryable = self._credentials.refused(token)
            raise error
        # A node that is older than `hello` answers it with this code.
        return None if error.code == "invalid_request" else error

    def _frames(self, connection: ClientConnection) -> Iterator[dict[str, object]]:
        """Yield frames; ask for a sign of life after a silence.

        Raises:
            TailraceError: `stalled`, or a frame is not JSON.
        """
        heartbeat, now = self._shared.heartbeat, self._shared.now
        heard_at = now()
        while True:
            try:
                text = connection.recv(timeout=heartbeat.seconds)
            except TimeoutError:
                if now() - heard_at > heartbeat.silence_max_s:
                    message = f"nothing arrived for {now() - heard_at:.1f} s"
                    raise TailraceError("stalled", message, retryable=True) from None
                connection.send('{"type":"ping"}')
                continue
            heard_at = now()
            frame = parse_frame(text)
            self._credentials.accepted()
            yield frame
            heard_at = now()  # the time that the consumer took is no silence

    @contextmanager
    def _open(self, token: Token) -> Iterator[ClientConnection]:
        with ExitStack() as opened:
            try:
                connection = opened.enter_context(
                    connect(
                        socket_url(self._shared.base),
                        subprotocols=[Subprotocol(SUBPROTOCOL)],
                        additional_headers=bearer(token),
                        open_timeout=self._shared.open_s,
                        close_timeout=1,
                        ping_interval=None,
                        proxy=None if self._shared.is_near else True,
                        max_size=LINE_BYTES_MAX,
                    )
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
            yield connection
