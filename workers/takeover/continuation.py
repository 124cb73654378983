"""Decides whether a new attempt continues the partial answer or starts it again. Pure.

Only plain answer text is continued. A backend that accepts a prefix would misread one that ends
inside reasoning, a tool call or structured output, so such an answer starts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from shared.config.models import Model
from shared.log.events import (
    AnyEvent,
    Extra,
    Progress,
    Reset,
    Start,
    Token,
    Upstream,
    Usage,
    decode,
)
from shared.log.extra import has_delta
from shared.log.records import Entry
from shared.log.request import Request
from workers.backends.background import BackgroundBackend
from workers.backends.contract import Backend
from workers.backends.contract import is_plain as is_continuable
from workers.takeover.verdicts import Form


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """How an attempt starts.

    Attributes:
        prefix: the answer text so far, which the backend continues; empty: from the beginning. The
            white space at its end is left out, because the templates of many servers trim it.
        needs_reset: append `reset` first, because readers have seen output that is now void.
        space: the white space behind the prefix, which readers have.
        upstream_id: the server makes the answer in the background: read it there. The other members
            say how the attempt starts if the answer is gone.
    """

    prefix: str
    needs_reset: bool
    space: str = ""
    upstream_id: str = ""

    @property
    def can_hand_over(self) -> bool:
        """Whether readers keep what they have."""
        return bool(self.upstream_id) or not self.needs_reset


def plan_attempt(
    log: Sequence[Entry],
    request: Request,
    model: Model,
    *,
    can_continue: bool,
    can_attach: bool = False,
) -> AttemptPlan:
    """Return how an attempt starts after `log`.

    Args:
        log: all entries so far; the `start` of the new attempt may be the last.
        can_continue: whether the backend accepts a prefix.
        can_attach: whether the backend makes answers in the background.
    """
    text, is_plain = _partial_answer(log)
    if can_attach and (upstream_id := upstream_of(log)):
        return AttemptPlan("", bool(text) or not is_plain, upstream_id=upstream_id)
    if not text and is_plain:
        return AttemptPlan("", False)
    if (
        can_continue
        and model.may_continue
        and (prefix := text.rstrip())
        and is_plain
        and is_continuable(request.params)
    ):
        return AttemptPlan(prefix, False, text[len(prefix) :])
    return AttemptPlan("", True)


def plan_for(
    backend: Backend, form: Form, log: Sequence[Entry], *, request: Request, model: Model
) -> AttemptPlan:
    """Return how an attempt of this backend starts after `log`.

    Args:
        form: in which the model's server is asked to continue; without a name: in none.
    """
    return plan_attempt(
        log,
        request,
        model,
        can_continue=backend.can_continue and bool(form.name),
        can_attach=isinstance(backend, BackgroundBackend),
    )


def upstream_of(log: Sequence[Entry]) -> str:
    """Return the id under which the model server makes the answer; empty: none since `reset`."""
    upstream_id = ""
    for _, raw in log:
        match _decode(raw):
            case Reset():
                upstream_id = ""
            case Upstream(upstream_id):
                pass
    return upstream_id


def writer_of(log: Sequence[Entry]) -> str:
    """Return the backend that wrote the newest part of a log; empty: none of a route."""
    for _, raw in reversed(log):
        if raw.startswith(b'{"type":"start"'):
            event = _decode(raw)
            if isinstance(event, Start) and event.backend:  # without: a stage has spoken first
                return event.backend
    return ""


def _partial_answer(log: Sequence[Entry]) -> tuple[str, bool]:
    """Return the text since the last reset, and whether the answer holds nothing but text."""
    pieces: list[str] = []
    is_plain = True
    for _, raw in log:
        match _decode(raw):
            case Reset():
                pieces, is_plain = [], True
            case Token(text, extra):
                pieces.append(text)
                is_plain = is_plain and not has_delta(extra)
            case Extra(extra) if not has_delta(extra):
                pass
            case Start() | Usage() | Progress() | Upstream():
                pass
            case _:
                is_plain = False
    return "".join(pieces), is_plain


def _decode(raw: bytes) -> AnyEvent | None:
    try:
        return decode(raw)
    except msgspec.ValidationError:
        return None  # an event type of a newer worker: not plain text
