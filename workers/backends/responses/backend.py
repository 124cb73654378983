"""The kind `responses`: servers with OpenAI's Responses, in background mode where they have it.

In background mode the server makes the answer to its end, also after a disconnect. So after a
broken connection the worker reads the rest over another connection, by `starting_after`. A worker
that takes over reads the response again from its beginning (workers/takeover/repetition.py). And
after a cancel the worker has to send a request that stops the server.
Source: developers.openai.com, "Background mode".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from urllib.parse import quote

import msgspec

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.ids import GENERATION_PREFIX
from shared.log.request import Request
from workers.backends.background import AnswerGone
from workers.backends.contract import Backend, BackendItem
from workers.backends.http.exchange import Exchange
from workers.backends.http.upstream_http import UpstreamAddress, UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.posting import PostingBackend, Wire
from workers.backends.responses.reader import ResponsesReader
from workers.backends.responses.request import body_of
from workers.backends.route import Route, find_route

RESUMES_MAX = 3  # connections in a row that break without a new event
CANCEL_S = 10.0

log = logging.getLogger(__name__)


class ResponsesWire(Wire):
    """OpenAI's Responses: see `Wire`.

    Attributes:
        has_background: False: the server has refused background mode.
    """

    path = "/responses"

    def __init__(self, model: Model, settings: Settings) -> None:
        super().__init__(model, settings)
        self.has_background = True

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        body = body_of(self._model, request)
        if not self.has_background:
            body.pop("background", None)
            body["store"] = False
        return msgspec.json.encode(body)

    def reader(self, seed: str) -> ResponsesReader:
        return ResponsesReader(**self.bounds, seed=seed, may_resume=True)


class ResponsesBackend(PostingBackend):
    """One model of such a server: see `BackgroundBackend`."""

    counts_whole = True  # an answer is never continued: it is read again, or it starts again

    def __init__(
        self,
        model: Model,
        settings: Settings,
        http: UpstreamHttp,
        *,
        route: Route,
        wire: ResponsesWire,
    ) -> None:
        super().__init__(model, settings, http, route=route, wire=wire)
        self._responses = wire

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`; there is no prefix."""
        target, reader, limits = self._begin(seed)
        try:
            exchange = await self._ask_for(target, request, limits)
        except BackendError as error:
            raise self._reach.noted(error) from error.__cause__
        async with aclosing(self._follow(exchange, reader, limits)) as lists:
            async for items in lists:
                yield items

    async def attach(
        self, upstream_id: str, *, seed: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `BackgroundBackend.attach`."""
        _, reader, limits = self._begin(seed)
        reader.response_id, reader.is_background = upstream_id, True
        try:
            exchange = await self._open(self._response(upstream_id), b"", limits)
            async with aclosing(self._follow(exchange, reader, limits)) as lists:
                async for items in lists:
                    yield items
        except BackendError as error:
            if reader.is_over or error.code == "upstream_refused":
                raise AnswerGone(error.code, error.message) from error
            raise self._reach.noted(error) from error.__cause__

    async def cancel(self, upstream_id: str) -> None:
        """See `BackgroundBackend.cancel`."""
        data = {"model": self._model.name, "response": upstream_id}
        try:
            async with asyncio.timeout(CANCEL_S):
                target, _, limits = self._begin("")
                path = f"{self._wire.path}/{quote(upstream_id, safe='')}/cancel"
                exchange = await self._open(self._address(path), b"", limits)
                self._http.release(target.origin, exchange)
        except (BackendError, TimeoutError) as exc:
            if isinstance(exc, BackendError) and exc.upstream is not None:
                return  # the response has ended already, or the server has it no more
            log.warning("cancel at the model server failed", extra=data | {"reason": str(exc)})

    def _begin(self, seed: str) -> tuple[UpstreamAddress, ResponsesReader, Limits]:
        reader = self._responses.reader(seed.removeprefix(GENERATION_PREFIX))
        limits = Limits(self._settings, asyncio.get_running_loop().time())
        return self._usable_target(), reader, limits

    def _response(self, upstream_id: str, after: int = -1) -> UpstreamAddress:
        """Return the address of a response's events behind number `after`."""
        query = "stream=true" if after < 0 else f"stream=true&starting_after={after}"
        path = f"{self._wire.path}/{quote(upstream_id, safe='')}"
        return self._address(path, method="GET", query=query)

    async def _ask_for(self, target: UpstreamAddress, request: Request, limits: Limits) -> Exchange:
        """Send the request; again without background mode if the server refuses this mode."""
        wire = self._responses
        try:
            return await self._open(target, wire.encode(request, "", ""), limits)
        except BackendError as error:
            if not wire.has_background or not _is_about_mode(error):
                raise
        wire.has_background = False
        log.warning("no background mode", extra={"model": self._model.name})
        return await self._open(target, wire.encode(request, "", ""), limits)

    async def _follow(
        self, exchange: Exchange, reader: ResponsesReader, limits: Limits
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Yield the events of a response, over several connections if necessary."""
        resumes, seen = 0, -1
        yield []
        while True:
            async with aclosing(self._read_body(exchange, reader, limits)) as lists:
                async for items in lists:
                    yield items
            if reader.failure is not None:
                raise self._reach.noted(reader.failure)
            if reader.is_done:
                return
            resumes = 0 if reader.sequence > seen else resumes + 1
            seen = reader.sequence
            if resumes >= RESUMES_MAX and reader.is_cut:
                reader.is_over = True  # a cancelled response has no last event
                message = "the backend ended the answer without a last event"
                raise BackendError("upstream_error", message)
            if resumes >= RESUMES_MAX:
                message = "the connection to the backend broke in mid-answer"
                raise BackendError("upstream_error", message, is_outage=True)
            reader.resume()
            exchange = await self._resumed(reader, limits)

    async def _resumed(self, reader: ResponsesReader, limits: Limits) -> Exchange:
        """Open a connection for the rest of a response."""
        try:
            target = self._response(reader.response_id, reader.sequence)
            return await self._open(target, b"", limits)
        except BackendError as error:
            if error.code != "upstream_refused":
                raise
            # The server has this response no more. It has not refused the client's request.
            reader.is_over = True
            raise BackendError("upstream_error", error.message) from error

    async def _read_body(
        self, exchange: Exchange, reader: ResponsesReader, limits: Limits
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Yield the events of one connection, until the response has ended or can be resumed."""
        clock = asyncio.get_running_loop().time
        try:
            while not (reader.is_done or reader.is_cut):
                try:
                    items = await self._read(exchange, reader, limits)
                except BackendError as error:
                    if not (error.is_outage and reader.can_resume):
                        raise
                    return
                if items:
                    yield items
                    # The name of the answer is no token.
                    limits.has_content = reader.has_content
                limits.read(clock(), is_finished=reader.has_finish_reason)
        finally:
            self._http.release(self._usable_target().origin, exchange)


def _is_about_mode(error: BackendError) -> bool:
    refused = error.upstream
    if refused is None:
        return False
    message = refused.message.lower()
    is_named = "'background'" in message or "background mode" in message
    return refused.param in ("background", "store") or is_named


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    route = find_route(model, environ)
    wire = ResponsesWire(model, settings)
    return ResponsesBackend(model, settings, http, route=route, wire=wire)
