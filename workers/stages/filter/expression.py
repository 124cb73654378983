"""Reads the regular expressions of a filter: a part of Python's syntax that needs no backtracking.

    a . \\d \\w \\s \\D \\W \\S \\b \\. \\n \\t \\xHH \\uHHHH [a-z] [^a-z] (…) (?:…) |
    * + ? {n} {n,} {n,m}

and (?i) at the beginning. Look-arounds, references to groups, anchors and lazy or possessive
quantifiers are refused: they have no meaning in a text that is still growing, or they would need an
engine whose time has no bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

REPEAT_MAX = 1_000
DEPTH_MAX = 50
CLASSES = "dDwWsS"
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_COUNT = re.compile(r"\{(\d{0,4})(,?)(\d{0,4})\}")


@dataclass(frozen=True, slots=True)
class Char:
    """One character. `source` is a class for `re`."""

    source: str


@dataclass(frozen=True, slots=True)
class Border:
    """A word boundary, which has no character."""


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`least` to `most` times; `most` None: without a bound."""

    part: Node
    least: int
    most: int | None


Node = Char | Border | Sequence | Choice | Repeat


class ExpressionError(ValueError):
    """An expression that cannot be used; the text says why."""


def parse(text: str) -> tuple[Node, bool]:
    """Return the tree of an expression, and whether it ignores case.

    Raises:
        ExpressionError: the syntax is wrong, or not supported.
    """
    ignores_case = text.startswith("(?i)")
    reader = _Reader(text, 4 if ignores_case else 0)
    node = reader.choice(0)
    if reader.at < len(text):
        reader.fail("has one `)` too many")
    return node, ignores_case


class _Reader:
    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def fail(self, why: str) -> NoReturn:
        raise ExpressionError(f"{why} (at character {self.at + 1})")

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        found = self._peek()
        if not found:
            self.fail("ends too early")
        self.at += 1
        return found

    def choice(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            self.fail(f"has more than {DEPTH_MAX} groups inside one another")
        branches = [self._sequence(depth)]
        while self._peek() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._repeated(self._atom(depth)))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, atom: Node) -> Node:
        least, most = self._quantifier()
        if least == most == 1:
            return atom
        if isinstance(atom, Border):
            self.fail(r"repeats \b")
        if self._peek() and self._peek() in "?+*{":
            self.fail("has a lazy, possessive or second quantifier, which is not supported")
        return Repeat(atom, least, most)

    def _quantifier(self) -> tuple[int, int | None]:
        sign = self._peek()
        if sign in ("*", "+", "?"):
            self.at += 1
            return (1 if sign == "+" else 0), (1 if sign == "?" else None)
        if sign != "{":
            return 1, 1
        match = _COUNT.match(self.text, self.at)
        if match is None or not (match[1] or match[3]):
            self.fail(r"has a `{` that begins no count: write \{")
        least = int(match[1] or 0)
        most = (int(match[3]) if match[3] else None) if match[2] else least
        if max(least, most or 0) > REPEAT_MAX or (most is not None and most < least):
            self.fail(f"has a count that is not from 0 to {REPEAT_MAX}, or the larger one first")
        self.at = match.end()
        return least, most

    def _atom(self, depth: int) -> Node:
        sign = self._next()
        match sign:
            case "(":
                return self._group(depth)
            case "[":
                return self._class()
            case "\\":
                return self._escape()
            case ".":
                return Char(r"[^\n]")
            case "^" | "$":
                self.at -= 1
                self.fail(
                    f"has `{sign}`: an answer that still grows has no beginning or end that a "
                    rf"filter can match; write \{sign} for the sign"
                )
            case "*" | "+" | "?" | "{":
                self.at -= 1
                self.fail(f"has `{sign}` behind nothing")
        return Char(_one(sign))

    def _group(self, depth: int) -> Node:
        if self._peek() == "?":
            if not self.text.startswith("?:", self.at):
                self.fail("has a group (?…), which is not supported; (?:…) is, and (?i) in front")
            self.at += 2
        node = self.choice(depth + 1)
        if self._peek() != ")":
            self.fail("lacks a `)`")
        self.at += 1
        return node

    def _escape(self) -> Node:
        sign = self._peek()
        if sign == "b":
            self.at += 1
            return Border()
        if sign and sign in CLASSES:
            self.at += 1
            return Char(f"[\\{sign}]")
        return Char(_one(self._escaped()))

    def _escaped(self) -> str:
        """Return the character that an escape stands for; the place is behind the backslash."""
        sign = self._next()
        if sign in _ESCAPES:
            return _ESCAPES[sign]
        if sign in "xu":
            digits = self.text[self.at : self.at + (2 if sign == "x" else 4)]
            if not re.fullmatch(r"[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}", digits):
                self.fail(f"has a \\{sign} without its digits")
            self.at += len(digits)
            return chr(int(digits, 16))
        if sign.isalnum():
            self.at -= 1
            self.fail(f"has \\{sign}, which is not supported")
        return sign

    def _class(self) -> Node:
        start = self.at
        is_negated = self._peek() == "^"
        if is_negated:
            self.at += 1
        members: list[str] = []
        while self._peek() != "]" or not members:
            low = self._member()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._member()
                if len(low) > 1 or len(high) > 1 or low > high:
                    self.fail("has a range whose borders are no two characters in order")
                members.append(f"{_quoted(low)}-{_quoted(high)}")
            else:
                members.append(low if len(low) > 1 else _quoted(low))
        self.at += 1
        source = f"[{'^' if is_negated else ''}{''.join(members)}]"
        try:
            re.compile(source)
        except re.error as exc:
            self.at = start
            self.fail(f"has a class that cannot be used: {exc}")
        return Char(source)

    def _member(self) -> str:
        sign = self._next()
        if sign != "\\":
            return sign
        if self._peek() and self._peek() in CLASSES:
            return "\\" + self._next()
        if self._peek() == "b":
            self.fail(r"has \b inside a class")
        return self._escaped()


def _quoted(character: str) -> str:
    return f"\\U{ord(character):08x}"


def _one(character: str) -> str:
    return f"[{_quoted(character)}]"
