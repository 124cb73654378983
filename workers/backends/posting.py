"""The backend of every kind whose servers answer one POST with a stream over HTTP.

One POST per attempt. A `Wire` says what is sent and how the answer is read: one for each kind. This
module makes the request, keeps its time limits, and translates errors. Closing the generator closes
the connection; vLLM, llama.cpp and Ollama then stop generating.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from ssl import SSLError
from typing import Protocol

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from shared.text.redaction import remember_url
from workers.backends.contract import BackendItem, Finish, SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.exchange import AnswerIsTls, Exchange, ExchangeError
from workers.backends.http.proxy import ProxyRefused, format_authority
from workers.backends.http.upstream_http import AddressInvalid, UpstreamAddress, UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.reading.answer_reader import AnswerReader
from workers.backends.reading.failure import answered_at
from workers.backends.route import Route

REFUSAL_BYTES_MAX = 65_536  # of the body of an error response
# 503: the server loads its model or is overloaded; 502: a gateway does not reach the server.
OUTAGE_STATUSES = (502, 503)
CONNECTIONS_TRIED_MAX = 3  # for one request, when the server closes idle connections
ADVICE_EVERY_S = 60.0  # the same advice about a model is logged at most so often
TAIL_S = 0.2  # wait for the end of the body after [DONE], so that the connection can be used again

log = logging.getLogger(__name__)


class Wire(Protocol):
    """What a kind sends to its servers, and how it reads their answers. Does no I/O.

    Attributes:
        path: behind the path of `base_url`, for example `/chat/completions`.
        query: of the URL, without `?`; is sent behind a query of `base_url`.
        accept: the media type of the stream.
        headers: further headers that the kind needs; `headers` of the models file win.
    """

    @property
    def path(self) -> str: ...

    @property
    def query(self) -> str: ...

    @property
    def accept(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        """Return the body of the request.

        Raises:
            BackendError: `upstream_refused`: this kind of server cannot take the request.
        """
        ...

    def reader(self, seed: str) -> AnswerReader:
        """Return a reader for one answer. `seed` is part of ids that are made here."""
        ...

    def refusal(
        self, status: int, body: bytes, *, retry_after: str | None, now_s: float
    ) -> BackendError:
        """Return the error for a response whose status is not 2xx: see `failure.refusal`."""
        ...


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
        remember_url(model.base_url)  # servers quote it in error messages
        usual = {
            "Accept": wire.accept,
            "Accept-Encoding": "identity",  # a compressing proxy would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": "tailrace",
            **wire.headers,
        }
        replaced = {name.lower() for name in route.headers}
        headers = {name: usual[name] for name in usual if name.lower() not in replaced}
        headers |= route.headers
        if route.proxy is not None:
            data = {"model": model.name, "proxy": format_authority(*route.proxy[:2])}
            log.info("model behind a proxy", extra=data)
        self._advice, self._advise_again_s = "", 0.0  # the last one that was logged
        self._target: UpstreamAddress | None = None
        with suppress(AddressInvalid):  # then `stream` raises
            self._target = UpstreamAddress(
                model.base_url,
                wire.path,
                headers,
                query=wire.query,
                tls=route.tls,
                proxy=route.proxy,
            )

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`. `seed` is not sent; it is part of ids that are made here."""
        if self._target is None:
            raise self._noted(_no_address(self._model.base_url))
        body = self._wire.encode(request, prefix, form)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        reader = self._wire.reader(seed.removeprefix("gen_"))
        try:
            exchange = await self._open(self._target, body, limits)
        except BackendError as error:
            raise self._noted(error) from error.__cause__
        try:
            yield []
            while not reader.is_done:
                items = await self._read(exchange, reader, limits)
                if (running := reader.take_running_usage()) is not None:
                    items.append(running)
                if items:
                    yield items
                    limits.has_content = True
                limits.read(clock(), is_finished=reader.has_finish_reason)
            if reader.failure is not None:
                raise self._noted(reader.failure)
            await _read_tail(exchange, clock() + TAIL_S)
        finally:
            # Keeps the connection only if the body was read to its end.
            self._http.release(self._target.origin, exchange)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _noted(self, error: BackendError) -> BackendError:
        """Tell the operator about a fault of the set-up; return the error."""
        if isinstance(error, SetUpFault):
            now_s = asyncio.get_running_loop().time()
            if error.advice != self._advice or now_s >= self._advise_again_s:
                self._advice, self._advise_again_s = error.advice, now_s + ADVICE_EVERY_S
                data = {"model": self._model.name, "advice": error.advice}
                log.warning("model server unusable", extra=data)
        return error

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
                exchange = await self._connect(target, limits)
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
            if 200 <= exchange.status < 300:
                return exchange
            raise await self._read_refusal(exchange, limits)
        raise AssertionError("the last try returns or raises")

    async def _connect(self, target: UpstreamAddress, limits: Limits) -> Exchange:
        try:
            return await self._http.connect(target.origin, limits.deadline)
        except TimeoutError as exc:
            if asyncio.get_running_loop().time() >= limits.deadline:
                raise limits.exceeded() from exc
            failure, cause = limits.no_connection(), explain(exc, target.origin)
            raise SetUpFault(
                failure.code, failure.message, cause.for_operator, retryable=True, is_outage=True
            ) from exc
        except OSError as exc:
            cause = explain(exc, target.origin)
            message = f"the backend cannot be reached: {cause.for_client}"
            raise SetUpFault(
                "upstream_error", message, cause.for_operator,
                retryable=True, is_outage=_is_away(exc),
            ) from exc  # fmt: skip

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
            _log_warnings(reader, items)
        return items


def _no_address(base_url: str) -> SetUpFault:
    advice = f"base_url {base_url!r} is no address of a server: correct the models file"
    message = "the backend cannot be reached: its address is not valid"
    return SetUpFault("upstream_error", message, advice, retryable=True)


def _log_warnings(reader: AnswerReader, items: list[BackendItem]) -> None:
    if items and isinstance(items[-1], Finish) and (reason := items[-1].unknown_reason):
        log.warning("finish reason unknown", extra={"finish_reason": reason})
    if reader.warnings:
        log.warning("odd answer repaired", extra={"repairs": sorted(reader.warnings)})


async def _read_tail(exchange: Exchange, deadline: float) -> None:
    """Read the body to its end, so that the connection can be used again."""
    try:
        while await exchange.read(deadline):
            pass
    except OSError:
        pass  # the connection will be closed; the answer is complete


def _is_away(exc: OSError) -> bool:
    """Whether the server may come back by itself. A wrong name, TLS and a proxy's no do not."""
    if isinstance(exc, socket.gaierror):
        return exc.errno == socket.EAI_AGAIN
    return not isinstance(exc, (SSLError, ProxyRefused))
