"""Raises and logs failures to reach a model's server. http/cause.py explains them."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from ssl import SSLError
from typing import TypeVar

from shared.config.models import Model
from shared.errors import BackendError
from shared.text.redaction import remember_url
from workers.backends.contract import SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.proxy import ProxyRefused
from workers.backends.http.upstream_http import Origin
from workers.backends.limits import Limits
from workers.backends.route import Route

ADVICE_EVERY_S = 60.0  # the same advice about a model is logged at most so often

log = logging.getLogger(__name__)
T = TypeVar("T")


class Reach:
    """The failures to reach the server of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._advice, self._advise_again_s = "", 0.0  # the last one that was logged
        remember_url(model.base_url)  # servers quote it in error messages

    def note_proxy(self, route: Route) -> None:
        """Tell the operator, at start, that a proxy is on the way."""
        if route.proxy is not None:
            data = {"model": self._model.name, "proxy": route.proxy.authority}
            log.info("model behind a proxy", extra=data)

    def noted(self, error: BackendError) -> BackendError:
        """Tell the operator about a fault of the set-up; return the error."""
        if isinstance(error, SetUpFault):
            now_s = asyncio.get_running_loop().time()
            if error.advice != self._advice or now_s >= self._advise_again_s:
                self._advice, self._advise_again_s = error.advice, now_s + ADVICE_EVERY_S
                data = {"model": self._model.name, "advice": error.advice}
                log.warning("model server unusable", extra=data)
        return error

    def no_address(self) -> SetUpFault:
        """Return the failure for a `base_url` that is no address of a server."""
        url = self._model.base_url
        advice = f"base_url {url!r} is no address of a server: correct the models file"
        message = "the backend cannot be reached: its address is not valid"
        return SetUpFault("upstream_error", message, advice, retryable=True)

    async def connected(self, connecting: Awaitable[T], origin: Origin, limits: Limits) -> T:
        """Return the connection that `connecting` opens.

        Raises:
            BackendError: no connection; `is_outage` if the server may come back by itself.
        """
        try:
            return await connecting
        except TimeoutError as exc:
            if asyncio.get_running_loop().time() >= limits.deadline:
                raise limits.exceeded() from exc
            failure, cause = limits.no_connection(), explain(exc, origin)
            raise SetUpFault(
                failure.code, failure.message, cause.for_operator, retryable=True, is_outage=True
            ) from exc
        except OSError as exc:
            cause = explain(exc, origin)
            message = f"the backend cannot be reached: {cause.for_client}"
            raise SetUpFault(
                "upstream_error", message, cause.for_operator,
                retryable=True, is_outage=_is_away(exc),
            ) from exc  # fmt: skip


def _is_away(exc: OSError) -> bool:
    """Whether the server may come back by itself.

    A wrong name, a TLS error or a refusal by the proxy does not go away by itself.
    """
    if isinstance(exc, socket.gaierror):
        return exc.errno == socket.EAI_AGAIN
    return not isinstance(exc, (SSLError, ProxyRefused))
