"""Passes an answer through the stages of a model, without a worker and without Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import Start, Token, encode
from shared.log.ids import EventId
from shared.log.records import Begun, parse_meta
from shared.log.request import Request
from workers.backends.contract import BackendItem, Finish
from workers.stages import Stages
from workers.stages.contract import Services

START = EventId(1, 1), encode(Start(1, "m"))


def begun(model: Model) -> Begun:
    """The begin of a first attempt."""
    fields = {b"status": b"running", b"owner": b"alice", b"model": model.name.encode()}
    fields |= {b"created": b"1000", b"priority": b"interactive", b"attempt": b"1"}
    meta = parse_meta("gen_00000001", fields)
    return Begun(START, 0, fields, meta)


async def through(
    model: Model, *pieces: str | BackendItem, request: Request | None = None
) -> list[BackendItem]:
    """Return what leaves the stages of an answer; a text stands for a token in its own list."""
    asked = request or Request([{"role": "user", "content": "hi"}])
    services: Any = Services(Settings(), None)  # type: ignore[arg-type]
    pipeline = Stages({model.name: model}, services).open(model, begun(model), asked, [START])
    assert pipeline is not None

    async def ask(request: Request) -> AsyncGenerator[list[BackendItem], None]:
        for piece in pieces:
            yield [Token(piece) if isinstance(piece, str) else piece]
        yield [Finish("stop")]

    items: list[BackendItem] = []
    async with aclosing(pipeline.read(asked, ask)) as stream:
        async for passed in stream:
            items += passed
    return items
