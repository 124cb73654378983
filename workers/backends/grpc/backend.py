"""The kind `grpc`: one call for each answer, over one channel for each model.

The channel connects by itself and is shared by all answers of the model (HTTP/2). Closing the
generator cancels the call, so that the server stops. The messages pass as bytes: a protocol
(protocol.py) encodes and reads them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from shared.config.kinds.spec import SCHEMES
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from workers.backends.contract import Backend, BackendItem, Finish
from workers.backends.grpc.channel import SharedChannel
from workers.backends.grpc.kserve import KServeProtocol
from workers.backends.grpc.own import TailraceProtocol
from workers.backends.grpc.protocol import GrpcProtocol
from workers.backends.grpc.status import MESSAGE_TOO_LARGE, cause_of, failure_of_status
from workers.backends.http.tls import TlsFileInvalid
from workers.backends.http.upstream_http import Origin, UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.reach import Reach
from workers.backends.reading.too_long import line_too_long
from workers.backends.route import Route, find_route

PROTOCOLS: Mapping[str, type[TailraceProtocol] | type[KServeProtocol]] = {
    "tailrace": TailraceProtocol,
    "kserve": KServeProtocol,
}

log = logging.getLogger(__name__)


class GrpcBackend:
    """One model of a server that streams over gRPC: see `Backend`."""

    counts_whole = False

    def __init__(self, model: Model, settings: Settings, route: Route) -> None:
        self.can_continue = model.may_continue
        self._model = model
        self._settings = settings
        self._protocol: GrpcProtocol = PROTOCOLS[model.options.get("protocol", "tailrace")](model)
        self._reach = Reach(model)
        self._reach.note_proxy(route)
        self._metadata = [(name.lower(), value) for name, value in route.headers.items()]
        self._origin = _origin_of(model.base_url, route)
        self._shared: SharedChannel | None = None

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`."""
        if self._origin is None:
            raise self._reach.noted(self._reach.no_address())
        message = self._protocol.encode(request, prefix, seed)
        reader = self._protocol.reader(seed)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        shared = await self._share(self._origin, limits)
        call = self._call(shared.channel, message)
        shared.begin()
        try:
            limits.sent(clock())
            await self._answered(call, self._origin, limits)
            yield []
            while not reader.is_done:
                items = reader.feed(await self._read(call, limits))
                if items:
                    yield items
                    limits.has_content = True
                limits.read(clock(), is_finished=False)
            if reason := items[-1].unknown_reason if isinstance(items[-1], Finish) else "":
                log.warning("finish reason unknown", extra={"finish_reason": reason})
        except BackendError as error:
            raise self._reach.noted(error) from error.__cause__
        finally:
            call.cancel()  # does nothing to a call that is over
            await shared.end()

    async def aclose(self) -> None:
        """Close the channel, as soon as no call uses it."""
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.retire()

    async def _share(self, origin: Origin, limits: Limits) -> SharedChannel:
        """Return the channel.

        Raises:
            BackendError: a certificate cannot be read any more.
        """
        try:
            self._shared = self._shared or SharedChannel(origin, self._settings)
        except OSError as exc:
            error = TlsFileInvalid(f"{exc.filename}: {exc.strerror}")
            raise await self._unreachable(error, origin, limits) from exc
        return self._shared

    async def _unreachable(self, cause: OSError, origin: Origin, limits: Limits) -> BackendError:
        try:
            await self._reach.connected(_raising(cause), origin, limits)
        except BackendError as error:
            return self._reach.noted(error)
        raise AssertionError("no cause was given")

    def _call(self, channel: grpc.aio.Channel, message: bytes) -> Any:
        timeout_s = self._settings.upstream_total_s
        if self._protocol.is_two_way:
            start = channel.stream_stream(self._protocol.method)
            return start(_only(message), metadata=self._metadata, timeout=timeout_s)
        start = channel.unary_stream(self._protocol.method)
        return start(message, metadata=self._metadata, timeout=timeout_s)

    async def _answered(self, call: Any, origin: Origin, limits: Limits) -> None:
        """Wait for the beginning of the answer.

        Raises:
            BackendError: no connection, or a status in the place of an answer.
        """
        try:
            async with asyncio.timeout_at(limits.deadline):
                # Also if the call has failed already: then there is none.
                await call.initial_metadata()
                is_over = call.done()
                code = await call.code() if is_over else grpc.StatusCode.OK
        except TimeoutError as exc:
            raise limits.exceeded() from exc
        except grpc.aio.AioRpcError as exc:
            code = exc.code()
        if code is grpc.StatusCode.OK:
            return
        cause = cause_of(code.name, await call.details() or "")
        if cause is None:
            raise await self._failure(call, limits)
        raise await self._unreachable(cause, origin, limits)

    async def _read(self, call: Any, limits: Limits) -> bytes:
        """Wait for a message.

        Raises:
            BackendError: the call has ended.
        """
        try:
            async with asyncio.timeout_at(limits.deadline):
                message = await call.read()
        except TimeoutError as exc:
            raise limits.exceeded() from exc
        except grpc.aio.AioRpcError as exc:
            raise await self._failure(call, limits) from exc
        if message is grpc.aio.EOF:
            text = "the backend ended the call without an end of the answer"
            raise BackendError("upstream_error", text)
        return bytes(message)

    async def _failure(self, call: Any, limits: Limits) -> BackendError:
        """Return the failure for a call that has ended with a status."""
        code, details = await call.code(), await call.details() or ""
        if MESSAGE_TOO_LARGE.search(details):
            return line_too_long(self._settings.upstream_line_bytes_max, "message")
        told = _first(await call.trailing_metadata(), "retry-after")
        return failure_of_status(code.name, details, retry_after=told)


async def _only(message: bytes) -> AsyncGenerator[bytes, None]:
    yield message


async def _raising(error: OSError) -> None:
    raise error


def _first(metadata: Sequence[tuple[str, Any]] | None, name: str) -> str | None:
    for key, value in metadata or ():
        if key == name and isinstance(value, str):
            return value
    return None


def _origin_of(url: str, route: Route) -> Origin | None:
    """Return the address in `base_url`; None: it has none."""
    try:
        parts = urlsplit(url)
        scheme = SCHEMES[parts.scheme]
        port = parts.port or scheme.port
    except (ValueError, KeyError):
        return None
    if not parts.hostname or not port or parts.path.strip("/") or parts.query:
        return None
    return Origin(parts.hostname, port, scheme.is_tls, route.tls, route.proxy)


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    return GrpcBackend(model, settings, find_route(model, environ))
