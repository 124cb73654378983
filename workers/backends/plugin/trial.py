"""Runs a plug-in as a worker does, for the tests of its author."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import Token
from shared.log.request import Request
from workers.backends.contract import BackendItem
from workers.backends.plugin.api import Backend
from workers.backends.plugin.backend import PluginBackend


def answer_of(plugin: type[Backend], prompt: str, **options: Any) -> tuple[str, list[BackendItem]]:
    """Return the text of an answer, and all its items; the last item is `Finish`.

    Args:
        options: the members of the model's table in the models file.

    Raises:
        BackendError: as a worker would get it.
    """
    return asyncio.run(_answer_of(plugin, prompt, options))


async def _answer_of(
    plugin: type[Backend], prompt: str, options: dict[str, Any]
) -> tuple[str, list[BackendItem]]:
    model = Model(name="trial", backend=f"{plugin.__module__}:{plugin.__name__}", options=options)
    backend = PluginBackend(model, Settings(), plugin(model))
    request = Request([{"role": "user", "content": prompt}])
    items: list[BackendItem] = []
    async with aclosing(backend.stream(request, prefix="", seed="trial")) as stream:
        async for batch in stream:
            items += batch
    return "".join(item.text for item in items if isinstance(item, Token)), items
