"""The backend of every kind whose servers answer one POST with a stream over HTTP.

One POST per attempt. A `Wire` says what is sent and how the answer is read: one for each kind. This
module makes the request, keeps its time limits, and translates errors. Closing the generator closes
the connection; vLLM, llama.cpp and Ollama then stop generating.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TypedDict

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.ids import GENERATION_PREFIX
from shared.log.request import Request
from workers.backends.contract import Backend, BackendItem, Finish, SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.exchange import AnswerIsTls, Exchange, ExchangeError
from workers.backends.http.upstream_http import AddressInvalid, UpstreamAddress, UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.reach import Reach
from workers.backends.reading.answer_reader import AnswerReader
from workers.backends.reading.failure import answered_at, refusal
from workers.backends.reading.rate_limit import read_rate_limit
from workers.backends.route import Route, find_route

REFUSAL_BYTES_MAX = 65_536  # of the body of an error response
# 503: the server loads its model or is overloaded; 502: a gateway does not reach the server; 529:
# Anthropic is overloaded.
OUTAGE_STATUSES = (502, 503, 529)
CONNECTIONS_TRIED_MAX = 3  # for one request, when the server closes idle connections
TAIL_S = 0.2  # wait for the end of the body after [DONE], so that the connection can be used again

log = logging.getLogger(__name__)


class ReaderBounds(TypedDict):
    """The limits of a reader of one answer, bytes."""

    line_bytes_max: int
    body_bytes_max: int


class Wire:
    """Encodes the requests of a kind, and makes the readers of its answers. Does no I/O.

    A subclass sets `path`, and defines `encode` and `reader`. The defaults are those of a stream of
    server-sent events.

    Attributes:
        query: of the URL, without `?`; is sent behind a query of `base_url`.
        accept: the media type of the stream.
        headers: further headers that the kind needs; `headers` of the models file win.
        refusal: returns the error for a response whose status is not 2xx: see `failure.refusal`.
    """

    query = ""
    accept = "text/event-stream"
    headers: Mapping[str, str] = {}
    refusal: Callable[..., BackendError] = staticmethod(refusal)

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings

    @property
    def path(self) -> str:
        """The part of the URL behind the path of `base_url`, for example `/chat/completions`."""
        raise NotImplementedError

    @property
    def bounds(self) -> ReaderBounds:
        """The limits for `reader`, from the settings."""
        settings = self._settings
        return {
            "line_bytes_max": settings.upstream_line_bytes_max,
            "body_bytes_max": settings.answer_bytes_max,
        }

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        """Return the body of the request.

        Raises:
            BackendError: `upstream_refused`: this kind of server cannot take the request.
        """
        raise NotImplementedError

    def reader(self, seed: str) -> AnswerReader:
        """Return a reader for one answer. `seed` is part of ids that are made here."""
        raise NotImplementedError


class PostingBackend:
    """One model of a server that answers a POST with a stream.

    Args:
        http: shared by all backends of the process; `aclose` closes it for all of them.
        route: how to reach the server.
        wire: of the model's kind.
    """

    counts_whole = False

    def __init__(
        self, model: Model, settings: Settings, http: UpstreamHttp, *, route: Route, wire: Wire
    ) -> None:
        self.can_continue = model.may_continue
        self._model = model
        self._settings = settings
        self._http = http
        self._wire = wire
        self._reach = Reach(model)
        usual = {
            "Accept": wire.accept,
            "Accept-Encoding": "identity",  # a compressing proxy would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": "tailrace",
            **wire.headers,
        }
        replaced = {name.lower() for name in route.headers}
        headers = {name: usual[name] for name in usual if name.lower() not in replaced}
        self._headers = {**headers, **route.headers}
        self._route = route
        self._reach.note_proxy(route)
        self._target: UpstreamAddress | None = None
        with suppress(AddressInvalid):  # then `stream` raises
            self._target = self._address(wire.path, query=wire.query)

    def _address(self, path: str, *, method: str = "POST", query: str = "") -> UpstreamAddress:
        """Return an address of the model's server, behind the path of `base_url`."""
        route = self._route
        return UpstreamAddress(
            self._model.base_url,
            path,
            self._headers,
            method=method,
            query=query,
            tls=route.tls,
            proxy=route.proxy,
        )

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`. `seed` is not sent; it is part of ids that are made here."""
        target = self._usable_target()
        body = self._wire.encode(request, prefix, form)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        reader = self._wire.reader(seed.removeprefix(GENERATION_PREFIX))
        try:
            exchange = await self._open(target, body, limits)
        except BackendError as error:
            raise self._reach.noted(error) from error.__cause__
        try:
            yield []
            while not reader.is_done:
                items = await self._read(exchange, reader, limits)
                has_content = bool(items)  # counts are no token
                if (running := reader.take_running_usage()) is not None:
                    items.append(running)
                if items:
                    yield items
                    limits.has_content = limits.has_content or has_content
                limits.read(clock(), is_finished=reader.has_finish_reason)
            if reader.failure is not None:
                raise self._reach.noted(reader.failure)
            await _read_tail(exchange, clock() + TAIL_S)
        finally:
            # Keeps the connection only if the body was read to its end.
            self._http.release(target.origin, exchange)

    def _usable_target(self) -> UpstreamAddress:
        """Return the address of requests.

        Raises:
            BackendError: `base_url` is no address.
        """
        if self._target is None:
            raise self._reach.noted(self._reach.no_address())
        return self._target

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _open(self, target: UpstreamAddress, body: bytes, limits: Limits) -> Exchange:
        """Send the request and wait for the response head; return the exchange.

        A server may close an idle connection at the moment when it is used again. It has not read
        the request then, so the request is sent again at once on another connection.

        Raises:
            BackendError: no connection, no response in time, or a status that is not 2xx.
        """
        request = target.request(body)
        for tries_left in reversed(range(CONNECTIONS_TRIED_MAX)):
            # The last try opens a new connection, because all idle ones may be closed.
            exchange = self._http.idle(target.origin) if tries_left else None
            is_reused = exchange is not None
            if exchange is None:
                connecting = self._http.connect(target.origin, limits.deadline)
                exchange = await self._reach.connected(connecting, target.origin, limits)
            try:
                await self._ask(exchange, request, limits)
            except ExchangeError as exc:
                if is_reused and exc.is_before_response:
                    continue
                advice = explain(exc, target.origin).for_operator
                message = f"the backend did not answer: {exc}"
                is_outage = exc.is_before_response and not isinstance(exc, AnswerIsTls)
                raise SetUpFault(
                    "upstream_error", message, advice, retryable=True, is_outage=is_outage
                ) from exc
            limit = read_rate_limit(exchange.headers, time.time())
            if limit is not None and self._http.on_limit is not None:
                self._http.on_limit(self._model.name, limit)
            if 200 <= exchange.status < 300:
                return exchange
            error = await self._read_refusal(exchange, limits)
            if exchange.status == 429 and error.retry_after_s is None and limit is not None:
                error.retry_after_s = limit.wait_s or None
            raise error
        raise AssertionError("the last try returns or raises")

    async def _ask(self, exchange: Exchange, request: bytes, limits: Limits) -> None:
        try:
            exchange.send(request)
            limits.sent(asyncio.get_running_loop().time())
            await exchange.head(limits.deadline)
        except BaseException as exc:
            exchange.abort()
            if isinstance(exc, TimeoutError):
                raise limits.exceeded() from exc
            raise

    async def _read_refusal(self, exchange: Exchange, limits: Limits) -> BackendError:
        """Read the body of an error response and close the connection; return the error."""
        body = bytearray()
        try:
            while len(body) < REFUSAL_BYTES_MAX and (data := await exchange.read(limits.deadline)):
                body += data
        except OSError:  # also TimeoutError
            body.clear()
        finally:
            exchange.abort()
        quoted = bytes(body[:REFUSAL_BYTES_MAX])
        headers = exchange.headers
        now_s = answered_at(headers.get("date"), time.time())
        told = headers.get("retry-after")
        error = self._wire.refusal(exchange.status, quoted, retry_after=told, now_s=now_s)
        error.status = exchange.status
        error.is_outage = error.retryable and exchange.status in OUTAGE_STATUSES
        return error

    async def _read(
        self, exchange: Exchange, reader: AnswerReader, limits: Limits
    ) -> list[BackendItem]:
        """Wait for bytes; return the events that they complete.

        After the finish reason, silence or a closed connection counts as the end of the body.
        """
        try:
            data = await exchange.read(limits.deadline)
        except OSError as exc:
            if not reader.has_finish_reason:
                if isinstance(exc, TimeoutError):
                    raise limits.exceeded() from exc
                message = "the connection to the backend broke in mid-answer"
                raise BackendError("upstream_error", message, is_outage=True) from exc
            data = b""
        items = reader.feed(data) if data else reader.feed_eof()
        if reader.is_done:
            log_warnings(log, reader.warnings, items)
        return items


def log_warnings(
    log: logging.Logger, repairs: Collection[str], items: Sequence[BackendItem]
) -> None:
    """Log an unknown finish reason, and the repairs, of an answer that ends with `items`."""
    if items and isinstance(items[-1], Finish) and (reason := items[-1].unknown_reason):
        log.warning("finish reason unknown", extra={"finish_reason": reason})
    if repairs:
        log.warning("odd answer repaired", extra={"repairs": sorted(repairs)})


async def _read_tail(exchange: Exchange, deadline: float) -> None:
    """Read the body to its end, so that the connection can be used again."""
    try:
        while await exchange.read(deadline):
            pass
    except OSError:
        pass  # the connection will be closed; the answer is complete


def build_posting(
    wire: type[Wire],
    model: Model,
    settings: Settings,
    http: UpstreamHttp,
    environ: Mapping[str, str],
) -> Backend:
    """Build the backend of a model, whose kind has this wire: see workers/backends/kinds.py."""
    route = find_route(model, environ)
    return PostingBackend(model, settings, http, route=route, wire=wire(model, settings))
