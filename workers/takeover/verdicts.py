"""How each model of this worker continues an answer: the form of the request, and whether the form
was seen to hold.

A worker reads the verdicts of `tailrace doctor --continuation` at its start and every
`VERDICTS_EVERY_S`. While Redis is away the last ones stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

from shared.config.models import Model, member_model
from shared.errors import Unavailable
from shared.queue.continuations import HOLDING, Verdict, read_verdicts
from shared.redis.client import Client

log = logging.getLogger(__name__)

VERDICTS_EVERY_S = 5.0


class Form(NamedTuple):
    """How a request asks for a continuation.

    Attributes:
        name: one of the styles of the model's kind; empty: the answer starts again instead.
        is_verified: the server was seen to continue an answer in this form.
        is_echoing: the server was seen to repeat the answer so far first.
    """

    name: str
    is_verified: bool
    is_echoing: bool = False


NO_FORM = Form("", False)


def choose_form(model: Model, verdict: Verdict | None) -> Form:
    """Return how a model continues an answer. Some kinds always continue."""
    if not model.may_continue:
        return NO_FORM
    if model.kind.continues_always:
        return Form(model.continue_style, True)
    if model.on_takeover == "continue":
        name = model.continue_style
    else:
        name = verdict.best_form(model.continue_style) if verdict is not None else ""
    outcome = verdict.forms.get(name) if verdict is not None else None
    return Form(name, outcome in HOLDING, outcome == "echoes")


class Verdicts:
    """The verdicts as this worker read them last."""

    def __init__(self, redis: Client, models: Mapping[str, Model]) -> None:
        self._redis = redis
        self._all_models = models
        self._found: dict[str, Verdict] = {}

    @property
    def _models(self) -> list[Model]:
        """Those with verdicts. A server's list may have changed since."""
        models = self._all_models.values()
        return [m for m in models if not m.kind.continues_always and m.route is None]

    def _in_routes(self) -> list[Model]:
        """Return the backends that continue only because a route says so."""
        models = self._all_models
        return [
            member_model(route, models[name])
            for route in models.values()
            if route.route is not None and route.on_takeover == "continue"
            for name in route.route.backends
            if models[name].on_takeover == "auto" and not models[name].kind.continues_always
        ]

    def form_of(self, model: Model) -> Form:
        return choose_form(model, self._found.get(model.name))

    async def open(self) -> None:
        """Read the verdicts, and warn of each model that continues in a form never verified."""
        await self.refresh()
        for model in [*self._models, *self._in_routes()]:
            form = self.form_of(model)
            if form.name and not form.is_verified:
                data = {"model": model.name, "form": form.name}
                log.warning("continuation never verified", extra=data)

    async def follow(self) -> None:
        """Read the verdicts again and again, until cancelled."""
        while True:
            await asyncio.sleep(VERDICTS_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        try:
            self._found = await read_verdicts(self._redis, self._models)
        except Unavailable:
            pass  # the loops of the worker report it
