"""Roles of a version to come: `python -m tests.support.newer_version worker` (or `api`).

It writes queue entries of version 2 and reads those of version 1, too; where the prompt asks for
citations, its demo model puts events into the log that today's readers do not know. All the rest is
today's role.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

import shared.queue.entries
import shared.queue.lanes
from cli.main import main
from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import Event, Token
from shared.log.request import Request
from shared.queue.lanes import LaneEntry
from workers import main as role
from workers.backends.contract import BackendItem
from workers.backends.demo.backend import DemoBackend

VERSION = 2
EVERY = 5  # tokens


class Citation(Event, frozen=True, tag="citation"):
    """Of a later vocabulary."""

    source: str


class NewerBackend(DemoBackend):
    """The demo model, with citations where they are asked for."""

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        is_citing, said = "cite" in str(request.messages), 0
        async for items in super().stream(request, prefix=prefix, seed=seed):
            if is_citing and said >= EVERY:
                said = 0
                yield [Citation("a book")]  # type: ignore[list-item]
            yield items
            said += sum(isinstance(item, Token) for item in items)


def decode_entry(raw: bytes) -> LaneEntry | None:
    try:
        ticket = msgspec.json.decode(raw, type=LaneEntry)
    except msgspec.MsgspecError:
        return None
    return ticket if ticket.v in (1, VERSION) else None


def build(
    models: Mapping[str, Model], settings: Settings, environ: Mapping[str, str], http: object
) -> dict[str, Any]:
    return {name: NewerBackend(model) for name, model in models.items()}


if __name__ == "__main__":
    shared.queue.entries.ENTRY_VERSION = VERSION
    shared.queue.lanes.decode_entry = decode_entry
    role.build_backends = build  # type: ignore[assignment]
    sys.exit(main())
