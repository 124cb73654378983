"""Decides whether a new attempt continues the partial answer or starts it again. Pure.

Only plain answer text is continued. A backend that accepts a prefix would misread one that ends
inside reasoning, a tool call or structured output, so such an answer starts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from shared.config.models import Model
from shared.log.events import AnyEvent, Extra, Progress, Reset, Start, Token, Usage, decode
from shared.log.extra import has_delta
from shared.log.records import Entry
from shared.log.request import Request
from workers.backends.contract import is_plain as is_continuable


@dataclass(frozen=True, slots=True)
class AttemptPlan:
    """How an attempt starts.

    Attributes:
        prefix: the answer text so far, which the backend continues; empty: from the beginning. The
            white space at its end is left out, because the templates of many servers trim it.
        needs_reset: append `reset` first, because readers have seen output that is now void.
        space: the white space behind the prefix, which readers have.
    """

    prefix: str
    needs_reset: bool
    space: str = ""


def plan_attempt(
    log: Sequence[Entry], request: Request, model: Model, *, can_continue: bool
) -> AttemptPlan:
    """Return how an attempt starts after `log`.

    Args:
        log: all entries so far; the `start` of the new attempt may be the last.
        can_continue: whether the backend accepts a prefix.
    """
    text, is_plain = _partial_answer(log)
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
            case Start() | Usage() | Progress():
                pass
            case _:
                is_plain = False
    return "".join(pieces), is_plain


def _decode(raw: bytes) -> AnyEvent | None:
    try:
        return decode(raw)
    except msgspec.ValidationError:
        return None  # an event type of a newer worker: not plain text
