"""Workers on a real server with a route over scripted backends.

async with RouteHarness(url, {"a": [fails()], "b": [says("hi")]}) as harness:
    await harness.start()
    generation_id = await harness.ask()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.config.model_route import RouteRules
from shared.config.models import Model
from shared.log.events import Start
from tests.support.worker_harness import BackendScript, ScriptedBackend, WorkerHarness


class RouteHarness(WorkerHarness):
    """The model `m` is a route over `members`.

    Args:
        scripts: of each backend, by its name.
        on_takeover: of the route; the backends say nothing unless `members` has them.
        rules: further members of the route.
    """

    def __init__(
        self,
        url: str,
        scripts: Mapping[str, Sequence[BackendScript]],
        *,
        on_takeover: str = "continue",
        members: Mapping[str, Model] | None = None,
        rules: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(url, *next(iter(scripts.values())), **settings)
        route = RouteRules(backends=tuple(scripts), **(rules or {}))
        given = members or {}
        self.models = {
            "m": Model(name="m", backend="route", on_takeover=on_takeover, route=route),
            **{name: given.get(name, Model(name=name)) for name in scripts},
        }
        self.members = {name: ScriptedBackend(*script) for name, script in scripts.items()}
        self.backends = dict(self.members)

    async def writers(self, generation_id: str) -> list[str]:
        """Return the backends that the events `start` name."""
        events = await self.events(generation_id)
        return [event.backend for event in events if isinstance(event, Start)]
