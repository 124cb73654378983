"""The kind `websocket`: one WebSocket for each answer.

Closing the generator closes the WebSocket, so that the server stops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial

from websockets.exceptions import InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.ids import GENERATION_PREFIX
from shared.log.request import Request
from workers.backends.contract import Backend, BackendItem, SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.exchange import AnswerIsTls, ExchangeError
from workers.backends.http.upstream_http import Origin, UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.posting import OUTAGE_STATUSES, log_warnings
from workers.backends.reach import Reach
from workers.backends.reading.failure import answered_at, refusal
from workers.backends.reading.too_long import line_too_long
from workers.backends.route import Route, find_route
from workers.backends.websocket.exchange import MessageTooLong, Refused, WebSocketExchange
from workers.backends.websocket.reader import ADDRESS, MessageReader
from workers.backends.websocket.request import encode_message

log = logging.getLogger(__name__)


class WebSocketBackend:
    """One model of a server that streams over a WebSocket: see `Backend`.

    Args:
        http: opens the connections.
        route: how to reach the server.
    """

    counts_whole = False

    def __init__(self, model: Model, settings: Settings, http: UpstreamHttp, route: Route) -> None:
        self.can_continue = model.may_continue
        self._model = model
        self._settings = settings
        self._http = http
        self._headers = {"User-Agent": "tailrace", **route.headers}
        self._reach = Reach(model)
        self._reach.note_proxy(route)
        self._uri: WebSocketURI | None = None
        self._origin: Origin | None = None
        try:
            uri = parse_uri(model.base_url)
        except (InvalidURI, ValueError):
            return  # then `stream` raises
        self._uri = uri
        self._origin = Origin(uri.host, uri.port, uri.secure, route.tls, route.proxy)

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`."""
        if self._uri is None or self._origin is None:
            raise self._reach.noted(self._reach.no_address())
        message = encode_message(self._model, request, prefix)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        id_part = seed.removeprefix(GENERATION_PREFIX)
        reader = MessageReader(self._model.options.get("answer"), seed=id_part)
        try:
            exchange = await self._open(self._uri, self._origin, limits)
        except BackendError as error:
            raise self._reach.noted(error) from error.__cause__
        try:
            exchange.send(message)
            limits.sent(clock())
            yield []
            while not reader.is_done:
                items, failure = await self._read(exchange, reader, limits)
                if items:
                    yield items
                    limits.has_content = True
                if failure is not None:
                    raise self._reach.noted(failure) from failure.__cause__
                limits.read(clock(), is_finished=False)
        finally:
            exchange.close(is_complete=reader.is_done)

    async def aclose(self) -> None:
        """Do nothing: every connection belongs to one answer."""

    async def _open(self, uri: WebSocketURI, origin: Origin, limits: Limits) -> WebSocketExchange:
        make = partial(WebSocketExchange, uri, self._settings.upstream_line_bytes_max)
        connecting = self._http.connect_as(make, origin, limits.deadline, is_tunnelled=True)
        exchange = await self._reach.connected(connecting, origin, limits)
        try:
            limits.sent(asyncio.get_running_loop().time())
            await exchange.open(self._headers, limits.deadline)
        except BaseException as exc:
            exchange.close()
            if isinstance(exc, TimeoutError):
                raise limits.exceeded() from exc
            if isinstance(exc, Refused):
                raise _refusal(exc) from exc
            if isinstance(exc, ExchangeError):
                message = f"the backend did not answer: {exc}"
                advice = explain(exc, origin).for_operator
                is_outage = exc.is_before_response and not isinstance(exc, AnswerIsTls)
                raise SetUpFault(
                    "upstream_error", message, advice, retryable=True, is_outage=is_outage
                ) from exc
            raise
        return exchange

    async def _read(
        self, exchange: WebSocketExchange, reader: MessageReader, limits: Limits
    ) -> tuple[list[BackendItem], BackendError | None]:
        """Wait for messages; return their events, and the failure that follows them."""
        items: list[BackendItem] = []
        try:
            messages = await exchange.read(limits.deadline)
            for message in messages:
                reader.feed(message, items)
                if reader.is_done:
                    break
            if not messages:
                reader.feed_close(exchange.close_code, exchange.close_reason, items)
        except BackendError as failure:
            return items, failure
        except MessageTooLong:
            return items, line_too_long(self._settings.upstream_line_bytes_max, "message")
        except OSError as exc:
            if isinstance(exc, TimeoutError):
                raise limits.exceeded() from exc
            message_text = "the connection to the backend broke in mid-answer"
            raise BackendError("upstream_error", message_text, is_outage=True) from exc
        if reader.is_done:
            log_warnings(log, reader.warnings, items)
        return items, None


def _refusal(refused: Refused) -> BackendError:
    """Return the failure for a handshake that the server refused."""
    response = refused.response
    headers = response.headers
    now_s = answered_at(headers.get("Date"), time.time())
    told = headers.get("Retry-After")
    body = bytes(response.body or b"")
    error = refusal(response.status_code, body, retry_after=told, now_s=now_s, address=ADDRESS)
    error.is_outage = error.retryable and response.status_code in OUTAGE_STATUSES
    return error


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    return WebSocketBackend(model, settings, http, find_route(model, environ))
