"""The interface of stages: what stands between the events of a model and the log.

A `Stage` is made once for each model and worker. For each attempt at an answer it opens an
`AnswerStage`, which keeps the state of this answer. The state is a fold of the log: the worker
passes the entries of earlier attempts to `fold` before the first `feed`, so a stage goes on exactly
where a dead worker stopped. The log lacks what a stage holds back; the model makes this text again.

Invariant: `fold`, `feed` and `flush` do no I/O and know no clock. Only `prepare` and
`finished` may wait.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.events import AnyEvent
from shared.log.records import Entry, Meta
from shared.log.request import Request
from shared.redis.client import Client
from workers.backends.contract import AudioSource, BackendItem

Items = list[BackendItem]
Preparation = AsyncGenerator[Items | Request, None]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the worker that stages may use in `build` and `prepare`."""

    settings: Settings
    redis: Client


@dataclass(frozen=True, slots=True)
class Answer:
    """The facts of one attempt at an answer.

    Attributes:
        request: as the client sent it.
        meta: of the generation: id, owner, session, model and times.
        log: the entries of the earlier attempts, and the `start` of this attempt.
        is_first: no earlier attempt has begun.
        held_s: for how long workers held the generation before this attempt.
        audio: the audio input; None: the generation has none.
    """

    model: Model
    request: Request
    meta: Meta
    log: Sequence[Entry]
    is_first: bool
    held_s: float
    audio: AudioSource | None = None


class AnswerStage:
    """One stage of one attempt. The methods of this class pass everything on.

    Attributes:
        ends_in_s: the answer ends with `length` when this attempt has taken so long, s; None: no
            such limit.
        is_apart: the code of the stage is a third party's and may block.
        records: `record` is called, and events of `prepare` pass through all stages.
    """

    ends_in_s: float | None = None
    is_apart = False
    records = False

    def prepare(self, request: Request) -> Preparation | None:
        """Work before the model is asked, in the order of the list. None: nothing to do.

        The generator yields events for readers, for example `Progress`; a `Request`, which replaces
        the request for later stages and the model; or a list whose last item is `Finish`: then this
        is the answer, and the model is not asked. Events pass through the later stages.

        Raises:
            BackendError: the attempt has failed.
        """
        return None

    def fold(self, event: AnyEvent) -> None:
        """Take an event that an earlier attempt has written."""

    def feed(self, items: Items) -> Items:
        """Return what may leave now. `Finish` is never among `items`, and may be returned last.

        After a returned `Finish` the model is stopped.

        Raises:
            BackendError: the attempt has failed.
        """
        return items

    def flush(self) -> Items:
        """Return what is held back, because the answer ends. May end with `Finish`, too."""
        return []

    def record(self, items: Items) -> None:
        """Take what leaves the whole list of stages, and goes to the log."""

    async def finished(self) -> None:
        """Work after the log has accepted the end of a completed answer. Raises nothing."""


class Stage(Protocol):
    """One stage of one model."""

    def open(self, answer: Answer) -> AnswerStage | None:
        """Return the stage of one attempt; None: this answer needs none."""
        ...
