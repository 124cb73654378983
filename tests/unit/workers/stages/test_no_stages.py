"""A model without stages has nothing between its backend and the log."""

from __future__ import annotations

from typing import Any

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.request import Request
from tests.support.open_stages import START, begun
from workers.stages import Stages
from workers.stages.contract import Services
from workers.takeover.answer import Asked, read_answer
from workers.takeover.continuation import AttemptPlan
from workers.takeover.verdicts import Form


class Backend:
    can_continue = counts_whole = False
    stream_of: Any = object()

    def stream(self, request: Request, *, prefix: str, seed: str, form: str) -> Any:
        return self.stream_of


def test_no_object_is_made_and_the_stream_of_the_backend_is_read_itself() -> None:
    model, request = Model(name="m"), Request([])
    services = Services(Settings(), None)  # type: ignore[arg-type]
    stages = Stages({"m": model}, services).open(model, begun(model), request, [START])
    backend: Any = Backend()
    asked = Asked(
        backend=backend, request=request, given=0, plan=AttemptPlan("", False),
        form=Form("", is_verified=False), seed="s", late=lambda items: None, stages=stages,
    )  # fmt: skip

    assert stages is None
    assert read_answer(asked) is Backend.stream_of
