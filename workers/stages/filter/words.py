"""Finds words of a list in a text that is still growing. Pure.

The words become a tree of their symbols, and the tree becomes one regular expression of `re`. The
branches of a node begin with different symbols, so the engine never tries a text twice: a search
costs at most the longest word for each character, whatever the text is.

    cat, car:   c(?:a(?:t|r|\\Z)|\\Z)

The branch `\\Z` stands for "the text ends here, and a word may go on": such a place is held back.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from workers.stages.filter.symbols import INVISIBLE_MAX, MARK, simple_symbols_of, symbols_of

_END = ""  # key of a node at which a word ends
_INSIDE = re.compile(rf"[\w{MARK}]")  # a symbol inside a word
_BEFORE_SIGN, _BEFORE_LETTER = f"(?!{_INSIDE.pattern})", f"(?!{MARK})"


class Words:
    """The words of one filter.

    Args:
        words: none is empty.
        is_whole: a word is not found inside another word.
    """

    def __init__(self, words: Iterable[str], *, is_whole: bool) -> None:
        self.needs_before = is_whole
        tree: dict[str, Any] = {}
        longest = 0
        for word in words:
            symbols, _ = symbols_of(word)
            longest = max(longest, len(symbols))
            node = tree
            for symbol in symbols:
                node = node.setdefault(symbol, {})
            # A mark belongs to the letter before it, and a sign, as in `c++`, ends before a letter.
            node[_END] = _BEFORE_SIGN if is_whole and _INSIDE.match(symbols[-1]) else _BEFORE_LETTER
        self.held_max = longest * (1 + INVISIBLE_MAX)
        self._is_whole = is_whole
        self._search_open = re.compile(self._root(tree, is_open=True)).search
        self._search_whole = re.compile(self._root(tree, is_open=False)).search

    def find(self, text: str, at: int, is_whole: bool) -> tuple[int, int] | None:
        """Return the first place of a word, or the place at the end where a word may begin.

        Args:
            at: where the search begins; the characters before it only say whether a word begins.
            is_whole: no further text follows.
        """
        search = self._search_whole if is_whole else self._search_open
        if text.isascii():
            match = search(text.lower(), at)
            return None if match is None else match.span()
        if symbols := simple_symbols_of(text):
            match = search(symbols, at)
            return None if match is None else match.span()
        symbols, places = symbols_of(text)
        match = search(symbols, bisect_left(places, at))
        if match is None:
            return None
        start, last = match.span()
        is_at_end = last == len(symbols) and not is_whole
        return places[start], len(text) if is_at_end else places[last - 1] + 1

    def is_inside(self, character: str) -> bool:
        """See `Finder.is_inside`."""
        symbols, _ = symbols_of(character)
        return symbols[-2:-1] == MARK or bool(_INSIDE.match(symbols[-1:]))

    # The expression

    def _root(self, tree: dict[str, Any], *, is_open: bool) -> str:
        branches = []
        for symbol, node in tree.items():
            first = _literal(symbol)
            if self._is_whole and _INSIDE.match(symbol):
                # Behind the symbol, because `re` skips quickly to the first symbols only.
                first = f"{first}(?<!{_INSIDE.pattern}{first})(?<!{MARK}.{first})"
            branches.append(first + self._node(node, is_open=is_open))
        return f"(?:{'|'.join(branches)})"

    def _node(self, node: dict[str, Any], *, is_open: bool) -> str:
        children = [(symbol, child) for symbol, child in node.items() if symbol != _END]
        # The longer words first. The end of a text is also an end of a word for `(?!…)`.
        branches = [_literal(s) + self._node(child, is_open=is_open) for s, child in children]
        if _END in node:
            branches.append(node[_END])
        elif is_open:
            branches.append(r"\Z")
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _literal(symbol: str) -> str:
    return r"\s" if symbol.isspace() else re.escape(symbol)
