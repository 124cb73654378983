"""The form of a text in which words are compared. Pure.

Each character becomes its symbols: its compatibility decomposition (NFKD) without case. So a word
is found in any case and in any Unicode normal form, and so are full-width letters and ligatures.
Invisible characters, for example a zero-width space or a soft hyphen, have no symbol, but at
most `INVISIBLE_MAX` in a row: a longer row separates words.
"""

from __future__ import annotations

import re
import unicodedata

INVISIBLE_MAX = 8
SEPARATOR = "\0"  # never a part of a word
MARK = "\ue000"  # stands before each symbol that belongs to the letter before it
CACHED_MAX = 8_192  # characters
# Invisible characters that are not of the category Cf: joiner, fillers, variation selectors.
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0]")
_cached: dict[str, str] = {}
_COMPLEX = "\ue001"  # in `_Simple`: this character has no symbol, or several


def is_invisible(character: str) -> bool:
    """Whether a character has no symbol."""
    if character < "\x80":
        return False
    return unicodedata.category(character) == "Cf" or bool(_IGNORABLE.match(character))


def stands_alone(text: str) -> bool:
    """Whether the symbols of a piece of a text do not depend on the text before it.

    The piece has no invisible character, which would be counted in a row, and does not begin with
    a mark, which would belong to the letter before.
    """
    if text.isascii():
        return bool(text)
    return all(map(_symbols, text)) and not _symbols(text[0]).startswith(MARK)


def _symbols(character: str) -> str:
    found = _cached.get(character)
    if found is None:
        if character in (MARK, _COMPLEX):
            found = SEPARATOR
        elif is_invisible(character):
            found = ""
        else:
            folded = unicodedata.normalize("NFKD", character).casefold()
            found = _with_marks(unicodedata.normalize("NFKD", folded))
        if len(_cached) >= CACHED_MAX:
            _cached.clear()
        _cached[character] = found
    return found


class _Simple(dict[int, str]):
    """The symbol of each character that has exactly one, for `str.translate`."""

    def __missing__(self, code: int) -> str:
        found = _symbols(chr(code))
        if len(found) != 1 or found == SEPARATOR:
            found = _COMPLEX
        if len(self) >= CACHED_MAX:
            self.clear()
        self[code] = found
        return found


_simple = _Simple()


def simple_symbols_of(text: str) -> str:
    """Return the symbols of a text if each character has one; otherwise an empty text."""
    symbols = text.translate(_simple)
    return "" if _COMPLEX in symbols else symbols


def symbols_of(text: str) -> tuple[str, list[int]]:
    """Return the symbols of a text, and for each symbol the index of its character."""
    pieces: list[str] = []
    places: list[int] = []
    invisible = 0
    for at, character in enumerate(text):
        found = _symbols(character)
        if found:
            invisible = 0
        else:
            invisible += 1
            if invisible <= INVISIBLE_MAX:
                continue
            found = SEPARATOR
        pieces.append(found)
        places += [at] * len(found)
    return "".join(pieces), places


def _with_marks(symbols: str) -> str:
    return "".join(MARK + symbol if _is_mark(symbol) else symbol for symbol in symbols)


def _is_mark(symbol: str) -> bool:
    """Whether a symbol belongs to the letter before it.

    These are the combining marks, and the vowels and finals of a decomposed Korean syllable.
    """
    is_jamo = "\u1161" <= symbol <= "\u11ff"
    return symbol > "\x7f" and (is_jamo or unicodedata.category(symbol) in ("Mn", "Mc", "Me"))
