"""The stages of all models of one worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.config.models import Model, ModelTable
from shared.log.records import Begun, Entry
from shared.log.request import Request
from workers.backends.contract import AudioSource
from workers.stages.apart import PipelineApart
from workers.stages.contract import Answer, Services, Stage
from workers.stages.kinds import build_stage
from workers.stages.pipeline import Pipeline
from workers.writing.pricing import Pricing


class Stages:
    """The stages by model.

    Raises:
        ConfigurationError: a stage cannot be built.
    """

    def __init__(self, models: Mapping[str, Model], services: Services) -> None:
        self._services = services
        tables = models.tables if isinstance(models, ModelTable) else models
        # By identity: the models of a server's list share the tuple of `[models."*"]`.
        self._built = {
            id(model.stages): self._build(model) for model in tables.values() if model.stages
        }

    def _build(self, model: Model) -> list[Stage]:
        built = (build_stage(table, model, self._services) for table in model.stages)
        return [stage for stage in built if stage is not None]

    def pricing_of(self, model: Model) -> Pricing | None:
        """Return the prices of a model; None: it has no stage `usage`."""
        for table in model.stages:
            if table.stage == "usage":
                given = table.options
                return Pricing(
                    estimates=given.get("estimate", True),
                    input=given.get("input_price"),
                    output=given.get("output_price"),
                    cached_input=given.get("cached_input_price"),
                    currency=given.get("currency", "USD"),
                )
        return None

    def open(
        self,
        model: Model,
        begun: Begun,
        request: Request,
        log: Sequence[Entry],
        *,
        audio: AudioSource | None = None,
    ) -> Pipeline | None:
        """Return the stages of one attempt; None: the model has none, and nothing is to be called.

        Args:
            log: all entries so far, with the `start` of this attempt.
        """
        if not model.stages:
            return None
        answer = Answer(
            model=model,
            request=request,
            meta=begun.meta,
            log=log,
            # A second request of this attempt, to another backend, finds more than `start`.
            is_first=begun.start[0].seq == 1 and len(log) <= 1,
            held_s=int(begun.fields.get(b"held_ms") or 0) / 1000,
            audio=audio,
        )
        opened = (stage.open(answer) for stage in self._built[id(model.stages)])
        stages = [stage for stage in opened if stage is not None]
        if not stages:
            return None
        is_apart = any(stage.is_apart for stage in stages)
        return (PipelineApart if is_apart else Pipeline)(stages, log)
