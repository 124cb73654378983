"""Keeps the list of models of `[models."*"]` up to date: asks the server, and tells all roles.

Every worker asks, because any worker may be the only one. While the server is away, the last list
counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from shared.config.models import Model, ModelTable
from shared.config.settings import Settings
from shared.errors import BackendError, Unavailable
from shared.queue.model_lists import read_list, store_list
from shared.redis.client import Client
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.listing import ask_names
from workers.backends.route import find_route

ASK_EVERY_S = 30.0

log = logging.getLogger(__name__)


class ModelList:
    """The list of the server of `pattern`.

    Args:
        environ: holds the variables that the table names.

    Raises:
        ConfigurationError: such a variable is missing.
    """

    def __init__(
        self, redis: Client, models: ModelTable, settings: Settings, environ: Mapping[str, str]
    ) -> None:
        assert models.pattern is not None
        self._redis = redis
        self._models = models
        self._pattern: Model = models.pattern
        self._http = UpstreamHttp(settings)
        self._route = find_route(models.pattern, environ)
        self._has_failed = False

    async def follow(self) -> None:
        """Ask again and again, until cancelled."""
        try:
            while True:
                await self.refresh()
                await asyncio.sleep(ASK_EVERY_S)
        finally:
            await self._http.aclose()

    async def refresh(self) -> None:
        """Ask once; without an answer take the list that another worker has stored."""
        try:
            names = await ask_names(self._pattern, self._http, self._route)
        except BackendError as exc:
            if not self._has_failed:
                data = {"model": self._pattern.name, "reason": exc.message}
                log.warning("model list not read", extra=data)
            self._has_failed = True
            await self._take_stored()
            return
        self._has_failed = False
        self._models.learn(names)
        try:
            await store_list(self._redis, self._pattern, names)
        except Unavailable:
            pass  # the loops of the worker report it

    async def _take_stored(self) -> None:
        try:
            names = await read_list(self._redis, self._pattern)
        except Unavailable:
            return
        if names is not None:
            self._models.learn(names)
