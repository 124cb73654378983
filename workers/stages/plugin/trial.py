"""Tries a stage in a test of its author, without a worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.log.events import AnyEvent, Token
from workers.backends.contract import BackendItem
from workers.stages.plugin.api import Stage
from workers.stages.plugin.events import events_of


def passed(
    stage: type[Stage], *pieces: str | AnyEvent, log: Iterable[AnyEvent] = (), **options: Any
) -> list[BackendItem]:
    """Return what a stage makes of an answer.

    Args:
        pieces: of the model; a text stands for a `Token`.
        log: what an earlier attempt has written.
        options: the members of the stage's table in the models file.

    Raises:
        BackendError: the stage returned an object that is not an event.
    """
    made = stage(options)
    for event in log:
        made.seen(event)
    items: list[BackendItem] = []
    for piece in pieces:
        items += events_of(made.event(Token(piece) if isinstance(piece, str) else piece))
    return [*items, *events_of(made.finish())]
