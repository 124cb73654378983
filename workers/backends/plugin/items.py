"""Checks the objects that a plug-in yields. Pure."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from shared.errors import BackendError
from shared.log.events import (
    Data,
    Extra,
    File,
    FinishReason,
    Progress,
    Reasoning,
    Token,
    ToolCall,
    Usage,
)
from shared.log.extra import clean
from shared.text.surrogates import join_halves
from workers.backends.contract import BackendItem, Finish

EVENTS = (Token, Reasoning, ToolCall, Usage, Progress, Extra, File, Data)
REASONS = get_args(FinishReason)


def check_piece(piece: Any) -> BackendItem:
    """Return the item for one piece of an answer.

    Raises:
        BackendError: the piece is not valid; not retryable, because the plug-in has a mistake.
    """
    if type(piece) is str:
        return Token(piece if piece.isascii() else join_halves(piece))
    if isinstance(piece, Finish):
        if piece.reason not in REASONS:
            raise invalid_piece(f"a finish reason that is none of {', '.join(REASONS)}")
        return Finish(piece.reason, str(piece.unknown_reason), piece.extra)
    if isinstance(piece, EVENTS):
        try:
            # The fields of an event are not checked when it is made.
            values, _ = clean(msgspec.to_builtins(piece))
            checked: BackendItem = msgspec.convert(values, type(piece))
            return checked
        except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
            raise invalid_piece(f"a {type(piece).__name__} with a wrong value: {exc}") from exc
    raise invalid_piece(
        f"an object of the type {type(piece).__name__}: it must be a text or an event"
    )


def invalid_piece(found: str) -> BackendError:
    """Return the failure for a piece that is not valid."""
    return BackendError("upstream_error", f"the plug-in yielded {found}", retryable=False)
