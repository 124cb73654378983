"""The guard at the seam: compares the first words of a continuation with the answer so far. Pure.

A worker sends the answer so far without the white space at its end, because templates of many
servers trim it. Then the server may do one of these things:

    it goes on                            the white space is dropped that readers have already
    it repeats the whole answer so far    the repetition is dropped
    it begins anew, or thinks first       `has_begun_anew`: the caller asks from the beginning

Text is held back only while it equals the beginning of the answer, and the bounds are
`HELD_CHARS_MAX` and `HELD_S`. Past a bound the text is passed on, and is compared further.
Invariant: without `has_begun_anew`, every character that comes in leaves, except those dropped.
Source: docs/models.md, "Continuing an answer".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.log.events import Extra, Progress, Reasoning, Token, Usage
from workers.backends.contract import BackendItem

HELD_CHARS_MAX = 4_096
HELD_S = 1.0  # from the first text of the continuation
# So many equal characters prove that the server began anew. A list or a program may repeat its
# first words by itself, so a server that was seen to continue needs more proof.
ANEW_CHARS = 16
ANEW_CHARS_VERIFIED = 48
# A whole answer so far that is shorter proves nothing when it comes again: "ha" goes on as "haha".
REPEATED_CHARS_MIN = 2
REPEATED_CHARS_MIN_VERIFIED = 12


class Seam:
    """The first words of one continuation.

    Args:
        text: the answer so far, as readers have it, with the white space at its end.
        is_verified: this server was seen to continue (shared/queue/continuations.py).
        is_echoing: this server was seen to repeat the answer so far before it goes on.

    Attributes:
        has_begun_anew: the server did not continue. What it sends is not part of the answer.
        held_since_s: when the first text came that is held back; None: nothing is held back.
    """

    def __init__(self, text: str, *, is_verified: bool, is_echoing: bool = False) -> None:
        self.has_begun_anew = False
        self.held_since_s: float | None = None
        self._answer = text.strip()
        self._space = text[len(text.rstrip()) :]
        self._anew_chars = ANEW_CHARS_VERIFIED if is_verified else ANEW_CHARS
        self._repeated_min = REPEATED_CHARS_MIN_VERIFIED if is_verified else REPEATED_CHARS_MIN
        if is_echoing:
            self._repeated_min = 1
        self._said = ""  # the text of the continuation so far
        self._held: list[BackendItem] = []
        self._is_open = False  # nothing is compared any more
        self._is_passing = False  # a bound was reached: compare, and hold nothing back

    def feed(self, items: Sequence[BackendItem], now_s: float) -> list[BackendItem]:
        """Return the items that may leave now. After `has_begun_anew` nothing leaves."""
        if self.has_begun_anew:
            return []
        if self._is_open:
            return list(items)
        is_closing = False
        for item in items:
            self._held.append(item)
            if isinstance(item, Token):
                self._said += item.text
                if item.text and self.held_since_s is None:
                    self.held_since_s = now_s
            elif isinstance(item, Reasoning) and not self._said:
                return self._begin_anew()  # thoughts come before an answer, not inside it
            elif not isinstance(item, Usage | Progress | Extra):
                is_closing = True  # the text of this answer is complete, or a tool call begins
        return self._decide(is_closing=is_closing, is_late=False)

    def release(self) -> list[BackendItem]:
        """Return what is held back, because `HELD_S` have passed."""
        if self.has_begun_anew or self._is_open:
            return []
        return self._decide(is_closing=False, is_late=True)

    def _decide(self, *, is_closing: bool, is_late: bool) -> list[BackendItem]:
        start = len(self._said) - len(self._said.lstrip())
        said = self._said[start:]
        if not said and not is_closing and not is_late:
            return []  # white space alone proves nothing
        if said.startswith(self._answer) and len(self._answer) >= self._repeated_min:
            if self._is_passing:
                return self._begin_anew()  # readers already have a part of the repetition
            return self._drop_repetition(start + len(self._answer), is_closing or is_late)
        equal = _equal_chars(said, self._answer)
        is_over = is_closing or equal < len(said) or equal == len(self._answer)
        is_at_bound = is_late or self._is_passing or len(said) > HELD_CHARS_MAX
        if not (is_over or is_at_bound):
            return []
        if equal >= self._anew_chars:
            return self._begin_anew()
        # Readers may have got a part of the white space before the bound: never drop it again.
        again = 0 if self._is_passing else _equal_chars(self._said, self._space)
        self._is_passing, self._is_open = not is_over, is_over
        return self._pass(again)

    def _drop_repetition(self, count: int, is_over: bool) -> list[BackendItem]:
        """Drop `count` characters, and the white space behind them that readers have already."""
        rest = self._said[count:]
        again = _equal_chars(rest, self._space)
        if again == len(rest) < len(self._space) and not is_over:
            return []  # more of the white space may come
        self._is_open = True
        return self._pass(count + again)

    def _pass(self, dropped: int) -> list[BackendItem]:
        items, self._held = self._held, []
        self.held_since_s = None
        return _without(items, dropped)

    def _begin_anew(self) -> list[BackendItem]:
        self.has_begun_anew = True
        self._held.clear()
        self.held_since_s = None
        return []


def _equal_chars(one: str, other: str) -> int:
    """Return how many characters at the beginnings of two texts are equal."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(at for at in range(most) if one[at] != other[at])


def _without(items: list[BackendItem], dropped: int) -> list[BackendItem]:
    """Return the items without the first `dropped` characters of their text."""
    kept: list[BackendItem] = []
    for item in items:
        if dropped and isinstance(item, Token):
            cut = min(dropped, len(item.text))
            dropped -= cut
            kept += _rest(item, item.text[cut:], item.extra)
        else:
            kept.append(item)
    return kept


def _rest(token: Token, text: str, extra: dict[str, Any] | None) -> list[BackendItem]:
    if text:
        return [msgspec.structs.replace(token, text=text)]
    return [Extra(extra)] if extra else []
