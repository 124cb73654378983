"""Finds regular expressions in a text that is still growing, in bounded time. Pure.

The expressions become one automaton. Its states are sets of places in the expressions, and are made
when a text needs them. So the automaton reads each character once for each place where a match may
begin: a text of n characters costs at most n times `max_match` steps, whatever the expressions are.

The longest match at the first place counts, and no match is longer than `max_match`. A match is
certain when the character behind it is known, because `\\b` looks at this character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from shared.errors import ConfigurationError
from workers.stages.filter.expression import (
    Border,
    Char,
    Choice,
    ExpressionError,
    Node,
    Repeat,
    Sequence,
    parse,
)
from workers.stages.filter.symbols import INVISIBLE_MAX, is_invisible

PLACES_MAX = 20_000  # of all expressions of a filter
STATES_MAX = 2_000  # that are kept
MATCH = -1  # the place at which an expression is complete

Test = Callable[[str], object]


class _Places:
    """The places of all expressions: a character to read, a border to pass, or a choice.

    Each place is (test, is_border, next places); a place with neither is a choice.
    """

    def __init__(self) -> None:
        self.tests: list[Test | None] = []
        self.borders: list[bool] = []
        self.nexts: list[list[int]] = []
        self._tests: dict[str, Test] = {}

    def add(self, nexts: list[int], test: Test | None = None, *, is_border: bool = False) -> int:
        if len(self.tests) >= PLACES_MAX:
            raise ExpressionError(
                f"makes the filter larger than {PLACES_MAX} places: use less {{}}"
            )
        self.tests.append(test)
        self.borders.append(is_border)
        self.nexts.append(nexts)
        return len(self.tests) - 1

    def put(self, node: Node, then: int, *, ignores_case: bool) -> int:
        """Add a tree whose end leads to the place `then`; return its first place."""
        match node:
            case Char(source):
                flags = re.IGNORECASE if ignores_case else re.NOFLAG
                key = f"{ignores_case}{source}"
                test = self._tests.setdefault(key, re.compile(source, flags).match)
                return self.add([then], test)
            case Border():
                return self.add([then], is_border=True)
            case Sequence(parts):
                for part in reversed(parts):
                    then = self.put(part, then, ignores_case=ignores_case)
                return then
            case Choice(branches):
                return self.add([self.put(b, then, ignores_case=ignores_case) for b in branches])
            case Repeat():
                return self._repeat(node, then, ignores_case=ignores_case)

    def _repeat(self, node: Repeat, then: int, *, ignores_case: bool) -> int:
        if node.most is None:
            loop = self.add([then])
            self.nexts[loop].insert(0, self.put(node.part, loop, ignores_case=ignores_case))
            then = loop
        else:
            end = then
            for _ in range(node.most - node.least):
                then = self.add([self.put(node.part, then, ignores_case=ignores_case), end])
        for _ in range(node.least):
            then = self.put(node.part, then, ignores_case=ignores_case)
        return then


class _State:
    """A set of places. `steps` has for a character: whether a match ends before it, and the next
    state (None: no match goes on). The first dictionary is for a place behind a letter."""

    __slots__ = ("places", "steps")

    def __init__(self, places: frozenset[int]) -> None:
        self.places = places
        self.steps: tuple[dict[str, _Step], dict[str, _Step]] = ({}, {})


_Step = tuple[bool, _State | None]


class Patterns:
    """The expressions of one filter.

    Args:
        where: the place of the expressions, for messages.
        mask: no match contains this character.

    Raises:
        ConfigurationError: an expression cannot be used.
    """

    needs_before = True

    def __init__(self, patterns: Iterable[str], where: str, *, max_match: int, mask: str) -> None:
        self._places = _Places()
        self._max_match = max_match
        self._mask = mask
        self._states: dict[frozenset[int], _State] = {}
        firsts = []
        for at, pattern in enumerate(patterns):
            try:
                node, ignores_case = parse(pattern)
                firsts.append(self._places.put(node, MATCH, ignores_case=ignores_case))
            except ExpressionError as exc:
                raise ConfigurationError(f"{where}[{at}]: {pattern!r} {exc}") from exc
            if MATCH in self._reached([firsts[-1]], is_border=True):
                raise ConfigurationError(f"{where}[{at}]: {pattern!r} matches the empty text")
        self._start = self._state(frozenset(firsts))
        self.held_max = max_match * (1 + INVISIBLE_MAX)

    def find(self, text: str, at: int, is_whole: bool) -> tuple[int, int] | None:
        """See `Finder.find`."""
        start_steps = self._start.steps
        is_letter = _ends_with_letter(text, at)
        for place in range(at, len(text)):
            character = text[place]
            if character > "\x7f" and is_invisible(character):
                continue
            step = start_steps[is_letter].get(character)
            if step is None:
                step = self._step(self._start, character, is_letter)
            if step[1] is not None:
                end = self._end(text, place, is_letter, is_whole=is_whole)
                if end:
                    return place, end
            is_letter = _is_letter(character)
        return None

    def is_inside(self, character: str) -> bool:
        """See `Finder.is_inside`."""
        return _is_letter(character)

    def _end(self, text: str, start: int, is_letter: bool, *, is_whole: bool) -> int:
        """Return the end of the longest match at a place; 0: none, the length: it may go on."""
        state: _State | None = self._start
        end = read = invisible = 0
        for at in range(start, len(text)):
            character = text[at]
            if read and invisible < INVISIBLE_MAX and is_invisible(character):
                invisible += 1
                continue
            invisible = 0
            assert state is not None
            step = state.steps[is_letter].get(character) or self._step(state, character, is_letter)
            if step[0]:
                end = at
            state = step[1]
            if state is None or read == self._max_match:
                return self._without_invisible(text, end)
            read += 1
            is_letter = _is_letter(character)
        assert state is not None
        if not is_whole:
            return len(text)
        if MATCH in self._reached(state.places, is_border=is_letter):
            end = len(text)
        return self._without_invisible(text, end)

    def _without_invisible(self, text: str, end: int) -> int:
        while end and is_invisible(text[end - 1]):
            end -= 1
        return end

    # The automaton

    def _state(self, places: frozenset[int]) -> _State:
        found = self._states.get(places)
        if found is None:
            if len(self._states) >= STATES_MAX:
                self._states.clear()
                for steps in self._start.steps if hasattr(self, "_start") else ():
                    steps.clear()
            found = self._states[places] = _State(places)
        return found

    def _step(self, state: _State, character: str, is_letter: bool) -> _Step:
        is_border = is_letter != _is_letter(character)
        reached = self._reached(state.places, is_border=is_border)
        nexts = set()
        if character != self._mask:
            for place in reached:
                test = self._places.tests[place] if place != MATCH else None
                if test is not None and test(character):
                    nexts.update(self._places.nexts[place])
        step = MATCH in reached, self._state(frozenset(nexts)) if nexts else None
        steps = state.steps[is_letter]
        if len(steps) < STATES_MAX:
            steps[character] = step
        return step

    def _reached(self, places: Iterable[int], *, is_border: bool) -> set[int]:
        """Return the places that are reached without a character."""
        reached: set[int] = set()
        waiting = list(places)
        while waiting:
            place = waiting.pop()
            if place in reached:
                continue
            reached.add(place)
            if place == MATCH or self._places.tests[place] is not None:
                continue
            if is_border or not self._places.borders[place]:
                waiting += self._places.nexts[place]
        return reached


def _is_letter(character: str) -> bool:
    """Whether a character belongs to a word, as `\\\\w` says."""
    return character.isalnum() or character == "_"


def _ends_with_letter(text: str, at: int) -> bool:
    """Whether the last visible character before a place belongs to a word."""
    while at and is_invisible(text[at - 1]):
        at -= 1
    return bool(at) and _is_letter(text[at - 1])
