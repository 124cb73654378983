"""Plug-ins for tests with real workers: one that answers, and some that do what none should do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from workers.backends.plugin import Backend, PluginRequest
from workers.backends.plugin.api import Piece

LOOK_S = 0.05


class Echo(Backend):
    async def answer(self, request: PluginRequest) -> AsyncIterator[Piece]:
        for word in request.prompt.split():
            yield word


class Blocks(Backend):
    """Blocks its thread and its event loop, until the file exists that the prompt names."""

    async def answer(self, request: PluginRequest) -> AsyncIterator[Piece]:
        while not Path(request.prompt).exists():  # noqa: ASYNC240 - it blocks on purpose
            threading.Event().wait(LOOK_S)
        yield "done"


class Rubbish(Backend):
    def answer(self, request: PluginRequest) -> Iterator[Piece]:
        yield "good"
        yield 5  # type: ignore[misc]


class Raises(Backend):
    def answer(self, request: PluginRequest) -> Iterator[Piece]:
        yield "good"
        raise SystemExit("the whole worker shall end")


class Endless(Backend):
    """Calculates for ever, in Python code."""

    def answer(self, request: PluginRequest) -> Iterator[Piece]:
        yield "good"
        number = 0
        while True:
            number += 1
