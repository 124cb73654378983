"""Where the answer of one attempt comes from: one backend, or the backends of a route."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Protocol

from shared.config.models import Model, member_model
from shared.log.events import AnyEvent
from shared.log.records import Begun, Entry
from shared.log.request import Request
from workers.audio.input import open_audio
from workers.backends import Backend, BackendItem
from workers.parts import WorkerParts
from workers.routing.candidates import Plans
from workers.routing.routed_answer import RoutedAnswer, RoutedRequest
from workers.stages.pipeline import Pipeline
from workers.takeover.answer import Asked, read_answer
from workers.takeover.continuation import plan_for, writer_of
from workers.writing.outbox import Outbox
from workers.writing.usage import AnswerUsage

Late = Callable[[list[BackendItem]], None]


class Source(Protocol):
    """The answer of one attempt."""

    def read(self) -> AsyncGenerator[list[BackendItem], None]:
        """Yield what belongs to the log: see `read_answer`."""
        ...

    def flush(self) -> Sequence[AnyEvent]:
        """Return what the stages hold back, because the worker ends the answer."""
        ...

    async def finished(self) -> None:
        """Let the stages work after the log has accepted the end of a completed answer."""
        ...

    def log_fields(self) -> dict[str, Any]:
        """Return fields for the log line of the attempt."""
        ...


class OneBackend:
    """The answer of a model that is a backend itself."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def read(self) -> AsyncGenerator[list[BackendItem], None]:
        return read_answer(self._asked)

    def flush(self) -> Sequence[AnyEvent]:
        return self._asked.stages.flush() if self._asked.stages is not None else ()

    async def finished(self) -> None:
        if self._asked.stages is not None:
            await self._asked.stages.finished()

    def log_fields(self) -> dict[str, Any]:
        return {}


def open_source(
    parts: WorkerParts,
    begun: Begun,
    request: Request,
    *,
    outbox: Outbox,
    usage: AnswerUsage,
    late: Late,
) -> Source:
    """Return the source of an attempt.

    Args:
        outbox: with the entries of the earlier attempts.
        late: takes items that were held back at a seam for too long.
    """
    meta = begun.meta
    model = parts.models[meta.model]
    if model.route is not None:
        routed = RoutedRequest(
            model=model,
            request=request,
            generation_id=meta.generation_id,
            owner=meta.owner,
            session=meta.session,
            outbox=outbox,
            usage=usage,
            late=late,
            stages=lambda name, log: open_stages(parts, begun, request, log, (model.name, name)),
        )
        return RoutedAnswer(parts, routed)
    audio = open_audio(parts, begun, request)
    backend, form = parts.backends[model.name], parts.verdicts.form_of(model)
    asked = Asked(
        backend=backend,
        request=request,
        given=0 if backend.counts_whole else usage.given,
        plan=plan_for(backend, form, outbox.log, request=request, model=model),
        form=form,
        seed=meta.generation_id,
        late=late,
        log=outbox.log,
        stages=parts.stages.open(model, begun, request, outbox.log, audio=audio),
        audio=audio,
    )
    return OneBackend(asked)


def open_stages(
    parts: WorkerParts,
    begun: Begun,
    request: Request,
    log: Sequence[Entry],
    names: Sequence[str],
) -> Pipeline | None:
    """Return the stages of the first of these models that has any, for a request behind `log`."""
    for name in names:
        audio = open_audio(parts, begun, request)
        stages = parts.stages.open(parts.models[name], begun, request, log, audio=audio)
        if stages is not None:
            return stages
    return None


def backend_name(model: Model) -> str:
    """Return the name of the only backend of a model; empty: several may answer."""
    return model.kind.name if model.route is None else ""


def can_hand_over(parts: WorkerParts, model: Model, log: Sequence[Entry], request: Request) -> bool:
    """Whether another worker could go on behind `log` without a `reset`."""
    plans = Plans(log, request)
    for name in backends_of(parts, model):
        member = parts.models[name]
        if model.route is not None:
            member = member_model(model, member)
        candidate = plans.candidate(member, parts.backends[name], parts.verdicts.form_of(member))
        if candidate.plan.can_hand_over:
            return True
    return False


def backends_of(parts: WorkerParts, model: Model) -> Mapping[str, Backend]:
    """Return the backends that may answer for a model, by the names of their tables."""
    names = (model.name,) if model.route is None else model.route.backends
    return {name: parts.backends[name] for name in names}


def writing_backend(parts: WorkerParts, model: Model, log: Sequence[Entry]) -> Backend:
    """Return the backend that wrote the newest part of `log`; if there is none, the first one."""
    backends = backends_of(parts, model)
    return backends.get(writer_of(log)) or next(iter(backends.values()))
