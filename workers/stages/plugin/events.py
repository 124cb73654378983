"""Checks the objects that a third party's stage returns. Pure."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from shared.errors import BackendError
from shared.log.events import (
    Data,
    Event,
    Extra,
    File,
    FinishReason,
    Progress,
    Reasoning,
    Reset,
    Token,
    ToolCall,
    Upstream,
    Usage,
)
from workers.backends.contract import BackendItem, Finish

EVENTS = (Token, Reasoning, ToolCall, Usage, Progress, Extra, File, Data, Reset, Upstream)
REASONS = get_args(FinishReason)
CODE = "stage_failed"


def events_of(answer: Any) -> list[BackendItem]:
    """Return the items for the answer of a stage; the list ends behind the first `Finish`.

    Raises:
        BackendError: the answer has an object that is no event; not retryable.
    """
    if answer is None:
        return []
    if isinstance(answer, str | Event | Finish):
        return [_checked(answer)]
    try:
        parts = list(answer)
    except TypeError:
        raise failure(f"returned an object of the type {type(answer).__name__}") from None
    items = [_checked(part) for part in parts]
    for at, item in enumerate(items):
        if isinstance(item, Finish):
            return items[: at + 1]
    return items


def _checked(part: Any) -> BackendItem:
    if isinstance(part, str):
        return Token(part)
    if isinstance(part, Finish):
        if part.reason not in REASONS:
            raise failure(f"returned a finish reason that is none of {', '.join(REASONS)}")
        return part._replace(is_cut=True)
    if not isinstance(part, EVENTS):
        raise failure(f"returned an object of the type {type(part).__name__}")
    try:
        # The fields of an event are not checked when it is made.
        checked: BackendItem = msgspec.convert(msgspec.to_builtins(part), type(part))
        return checked
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise failure(f"returned a {type(part).__name__} with a wrong value: {exc}") from exc


def failure(what: str) -> BackendError:
    """Return the failure of an answer whose stage has a mistake. Another attempt has it, too."""
    return BackendError(CODE, f"a stage of this model {what}", retryable=False)
