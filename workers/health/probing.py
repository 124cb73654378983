"""Probes backends that are open or suspect, and backends that nobody has asked for a while.

A probe costs no tokens: the list of models where the kind has one, else a connection. An idle
backend gets a connection only. Of all workers one makes each probe. Kinds without a server (`demo`,
`local`, plug-ins) are not probed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress

from shared.backends.board import take_probe
from shared.config.models import Model, ModelTable
from shared.config.settings import Settings
from shared.errors import BackendError, Unavailable
from shared.redis.client import Client
from workers.backends.http.upstream_http import AddressInvalid, UpstreamAddress, UpstreamHttp
from workers.backends.listing import ask_names
from workers.backends.route import Route, find_route
from workers.health.health import BackendHealth

LOOK_S = 1.0
PROBE_S = 5.0  # between two probes of a backend that is open or suspect
IDLE_S = 60.0  # and of a backend that nobody asks
ANSWER_S = 5.0
# Schemes whose servers are reached by a connection of HTTP's kind.
AS_HTTP = {"ws": "http", "wss": "https", "grpc": "http", "grpcs": "https"}


class Probing:
    """The probes of one worker.

    Args:
        models: the tables of the models file.
        environ: holds the variables that the tables name.

    Raises:
        ConfigurationError: such a variable is missing.
    """

    def __init__(
        self,
        health: BackendHealth,
        redis: Client,
        models: Mapping[str, Model],
        settings: Settings,
        environ: Mapping[str, str],
    ) -> None:
        tables = models.tables if isinstance(models, ModelTable) else models
        self._health = health
        self._redis = redis
        self._http = UpstreamHttp(settings)
        self._models: dict[str, tuple[Model, Route]] = {
            name: (tables[name], find_route(tables[name], environ))
            for name in health.backends
            if tables[name].kind.has_server
        }

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while self._models:
                await asyncio.sleep(LOOK_S * random.uniform(0.8, 1.2))
                with suppress(Unavailable):  # the loops of the worker report it
                    await self.look()
        finally:
            await self._http.aclose()

    async def look(self) -> None:
        """Make the probes that are due and that no other worker makes.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        due = [name for name in self._models if await self._takes_probe(name)]
        async with asyncio.TaskGroup() as group:
            for backend in due:
                group.create_task(self._probe(backend))

    async def _takes_probe(self, backend: str) -> bool:
        if self._is_idle(backend):
            return await take_probe(self._redis, backend, round(IDLE_S * 900))
        is_doubtful = self._health.state(backend) in ("open", "suspect")
        return is_doubtful and await take_probe(self._redis, backend, round(PROBE_S * 900))

    def _is_idle(self, backend: str) -> bool:
        """Whether a closed backend has had no call for so long that nobody knows its state."""
        health = self._health
        is_quiet = health.idle_s(backend) >= IDLE_S and not health.busy(backend)
        return is_quiet and health.state(backend) == "closed"

    async def _probe(self, backend: str) -> None:
        model, route = self._models[backend]
        reason = ""
        try:
            if model.kind.models_path and not self._is_idle(backend):
                await ask_names(model, self._http, route, answer_s=ANSWER_S)
            else:
                await self._connect(model, route)
        except BackendError as error:
            # A server that has no list, or wants another key, is there.
            if error.is_outage or (error.status or 0) >= 500:
                reason = error.message
        self._health.note_probe(backend, is_up=not reason, reason=reason)

    async def _connect(self, model: Model, route: Route) -> None:
        """Open a connection and close it.

        Raises:
            BackendError: no server answers there.
        """
        scheme, _, rest = model.base_url.partition("://")
        deadline = asyncio.get_running_loop().time() + ANSWER_S
        try:
            url = f"{AS_HTTP.get(scheme, scheme)}://{rest}"
            target = UpstreamAddress(url, "", {}, tls=route.tls, proxy=route.proxy)
            (await self._http.connect(target.origin, deadline)).abort()
        except (OSError, AddressInvalid) as exc:  # also TimeoutError
            message = f"no connection: {str(exc) or type(exc).__name__}"
            raise BackendError("upstream_error", message, is_outage=True) from exc
