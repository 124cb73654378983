"""Reads one attempt's answer from the backend: a continuation under guard, or from the beginning.

A continuation that the server refuses, or that begins the answer anew, is asked again from the
beginning, once, in the same attempt. `reset` comes only when the server has accepted that request:
while the server is away, readers keep the text that they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from shared.errors import BackendError
from shared.log.events import Reset
from shared.log.records import Entry
from shared.log.request import Request
from shared.log.tally import rest_of
from workers.backends.background import AnswerGone, BackgroundBackend
from workers.backends.contract import AudioBackend, AudioSource, Backend, BackendItem, Finish
from workers.stages.pipeline import Pipeline
from workers.takeover.continuation import AttemptPlan
from workers.takeover.repetition import Repetition
from workers.takeover.seam import HELD_S, Seam
from workers.takeover.verdicts import Form

log = logging.getLogger(__name__)

Items = list[BackendItem]


@dataclass(frozen=True, slots=True)
class Asked:
    """The request of one attempt to its backend.

    Attributes:
        request: as the client sent it.
        given: the tokens of the answer so far, which the server does not count.
        seed: the generation's id.
        log: the entries of the earlier attempts.
        late: takes the items that were held back at the seam for too long.
        stages: what the events pass through on their way to the log; None: nothing.
        audio: the audio input of the generation; None: it has none.
    """

    backend: Backend
    request: Request
    given: int
    plan: AttemptPlan
    form: Form
    seed: str
    late: Callable[[Items], None]
    log: Sequence[Entry] = ()
    stages: Pipeline | None = None
    audio: AudioSource | None = None

    @property
    def rest(self) -> Request | None:
        """The request for what is missing behind the prefix, which may allow fewer tokens.

        None: the answer so far has all tokens that the request allows.
        """
        return rest_of(self.request, self.given)


def read_answer(asked: Asked) -> AsyncGenerator[Items, None]:
    """Yield what belongs to the log, in order; the lists are those of `Backend.stream`.

    Raises:
        BackendError: the attempt has failed. Items yielded before remain valid.
    """
    if (stages := asked.stages) is not None:
        late = asked.late
        staged = replace(asked, stages=None, late=lambda items: late(stages.feed(items)))
        return stages.read(
            asked.request, lambda request: read_answer(replace(staged, request=request))
        )
    if asked.plan.prefix or asked.plan.needs_reset or asked.plan.upstream_id:
        return _read_after_others(asked)
    # The usual case, without a second generator between the backend and the log.
    return _ask(asked, asked.request)


def _ask(
    asked: Asked, request: Request, *, prefix: str = "", form: str = ""
) -> AsyncGenerator[Items, None]:
    """Ask the backend, with the audio input unless a stage has taken it out of the request.

    Raises:
        BackendError: the request has an audio input, and the backend reads none.
    """
    backend, audio = asked.backend, asked.audio
    if audio is None or not request.audio:
        return backend.stream(request, prefix=prefix, seed=asked.seed, form=form)
    if not isinstance(backend, AudioBackend):
        message = "the backend of this model reads no audio"
        raise BackendError("upstream_refused", message, retryable=False)
    return backend.transcribe(request, audio, prefix=prefix, seed=asked.seed, form=form)


async def _read_after_others(asked: Asked) -> AsyncGenerator[Items, None]:
    """Yield the continuation of earlier attempts, or `Reset` and the answer from the beginning."""
    needs_reset = asked.plan.needs_reset
    if asked.plan.prefix and asked.rest is None:
        yield [Finish("length")]
        return
    if asked.plan.prefix or asked.plan.upstream_id:
        is_whole = False
        follow = _attach if asked.plan.upstream_id else _continue
        async with aclosing(follow(asked)) as continued:
            async for items in continued:
                if items is None:
                    break
                yield items
            else:
                is_whole = True
        if is_whole:
            return
        needs_reset = True
    stream = _ask(asked, asked.request)
    async with aclosing(stream):
        async for items in stream:
            yield [Reset("restarted"), *items] if needs_reset else items
            needs_reset = False


async def _attach(asked: Asked) -> AsyncGenerator[Items | None, None]:
    """Yield what the log lacks of an answer that the server makes in the background.

    The last list is None if the server cannot give this answer.
    """
    backend, upstream_id = asked.backend, asked.plan.upstream_id
    assert isinstance(backend, BackgroundBackend)
    repetition = Repetition(asked.log)
    try:
        async with aclosing(backend.attach(upstream_id, seed=asked.seed)) as stream:
            async for items in stream:
                yield repetition.rest_of(items)
    except AnswerGone as exc:
        data = {"generation_id": asked.seed, "reason": exc.message}
        log.warning("answer gone at the model server", extra=data)
        yield None


async def _continue(asked: Asked) -> AsyncGenerator[Items | None, None]:
    """Yield the continuation; the last list is None if the answer has to start again."""
    plan, form, rest = asked.plan, asked.form, asked.rest
    assert rest is not None
    text = plan.prefix + plan.space
    seam = Seam(text, is_verified=form.is_verified, is_echoing=form.is_echoing)
    clock = asyncio.get_running_loop().time
    data = {"generation_id": asked.seed, "form": form.name}
    stream = _ask(asked, rest, prefix=plan.prefix, form=form.name)
    has_begun = False
    timer: asyncio.TimerHandle | None = None
    try:
        async with aclosing(stream):
            async for items in stream:
                has_begun = has_begun or bool(items)
                passed = seam.feed(items, clock())
                if seam.has_begun_anew:
                    log.warning("continuation began anew", extra=data)
                    yield None
                    return
                if timer is None and seam.held_since_s is not None:
                    timer = _release_later(seam, asked.late)
                yield passed  # also an empty list: it says that the server has answered
    except BackendError as exc:
        if has_begun or exc.code != "upstream_refused" or exc.retryable:
            raise
        log.warning("continuation refused", extra=data | {"reason": exc.message})
        yield None
    finally:
        if timer is not None:
            timer.cancel()


def _release_later(seam: Seam, late: Callable[[Items], None]) -> asyncio.TimerHandle:
    def release() -> None:
        if items := seam.release():
            late(items)

    return asyncio.get_running_loop().call_later(HELD_S, release)
