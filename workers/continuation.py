"""Whether a new attempt can go on where the last one stopped. Pure: a log in, a plan out.

Only plain answer text can be continued. Inside reasoning, tool calls or structured output a prefix
would be read wrongly by the backends that accept one, so there the answer starts again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from shared.config.models import Model
from shared.log.events import AnyEvent, Progress, Reset, Start, Token, Usage, decode
from shared.log.records import Entry
from shared.log.request import Request
from workers.backends.contract import is_plain as is_continuable


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attempt starts.

    Attributes:
        prefix: the answer so far, to be continued; empty: from the beginning.
        needs_reset: what readers have seen must be taken back first.
    """

    prefix: str
    needs_reset: bool


def plan(log: Sequence[Entry], request: Request, model: Model, *, can_continue: bool) -> Plan:
    """Decide how to go on after `log`."""
    text, is_plain = _answer(log)
    if not text and is_plain:
        return Plan("", False)
    if (
        can_continue
        and model.on_takeover == "continue"
        and text
        and is_plain
        and is_continuable(request.params)
    ):
        return Plan(text, False)
    return Plan("", True)


def _answer(log: Sequence[Entry]) -> tuple[str, bool]:
    """The text since the last reset, and whether there is nothing but text."""
    pieces: list[str] = []
    is_plain = True
    for _, raw in log:
        match _decode(raw):
            case Reset():
                pieces, is_plain = [], True
            case Token(text):
                pieces.append(text)
            case Start() | Usage() | Progress():
                pass
            case _:
                is_plain = False
    return "".join(pieces), is_plain


def _decode(raw: bytes) -> AnyEvent | None:
    try:
        return decode(raw)
    except msgspec.ValidationError:
        return None  # written by a newer worker: not plain text
