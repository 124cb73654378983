"""Keeps the results of a finder for pieces that come often, so that no piece is searched each time.

The pieces of a model come from one vocabulary, and a few thousand of them make nearly all of a
text. The piece alone decides which part of it leaves and which part is held back, unless a match
begins in the held text and continues in the piece. The held text and the first character of the
piece decide whether such a match is possible:

    held   piece             "s" + "k" begins no word: the "s" leaves, and the piece is as known
      s │ ky to              head "ky ", tail "to"

If a finder looks at the character before a match, each result is kept twice: for a place inside a
word, and for a place outside. Invariant: a kept result is the result of the finder.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from workers.stages.filter.symbols import is_invisible, stands_alone

PIECES_MAX = 8_192  # of each kind, for each finder: about 3 MB
PIECE_CHARACTERS_MAX = 24
HELD_CHARACTERS_MAX = 24
OUTSIDE, INSIDE, UNKNOWN = 0, 1, 2  # the place behind a character
_BEFORE = (" ", "a")

Piece = tuple[str, str]  # what leaves, what is held back


class Finder(Protocol):
    """Finds matches in a text.

    Attributes:
        needs_before: the character before the text says whether a match may begin.
        held_max: the most characters that are held back.
    """

    needs_before: bool
    held_max: int

    def find(self, text: str, at: int, is_whole: bool) -> tuple[int, int] | None:
        """Return the first match from `at` on, or the place from which a match may begin.

        The second kind of place reaches to the end of the text. A match that reaches to the end is
        also only possible, unless the text is whole: what follows may change the match.
        """
        ...

    def is_inside(self, character: str) -> bool:
        """Whether a word goes on behind this visible character."""
        ...


class FinderCache:
    """What is known of one finder.

    A piece and a seam are searched for this when they come the second time, because a text of new
    pieces only would pay for each of them twice.

    Attributes:
        places: the last visible character of a text -> the place behind it.
        pieces: for each place: piece -> what becomes of it; None: it came once; False: it is to be
            searched each time.
        seams: for each place: held text with the next character -> whether a match may go on there;
            None: it came once.
    """

    __slots__ = ("_finder", "pieces", "places", "seams")

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self.places = _Places(finder)
        # The place `UNKNOWN` stays empty.
        self.pieces: tuple[dict[str, Piece | Literal[False] | None], ...] = ({}, {}, {})
        self.seams: tuple[dict[str, bool | None], ...] = ({}, {}, {})

    def learn(self, text: str, place: int) -> None:
        """Note a piece that begins at this kind of place."""
        if len(text) > PIECE_CHARACTERS_MAX or place == UNKNOWN:
            return
        pieces = self.pieces[place]
        if text not in pieces:
            _make_room(pieces)
            pieces[text] = None
        elif pieces[text] is None:
            pieces[text] = self._piece(text, place) if stands_alone(text) else False

    def _piece(self, text: str, place: int) -> Piece | Literal[False]:
        found = self._finder.find(_BEFORE[place] + text, 1, False)
        if found is None:
            return text, ""
        at, end = found
        return (text[: at - 1], text[at - 1 :]) if end > len(text) else False

    def learn_seam(self, held: str, character: str, place: int) -> None:
        """Note that this character follows the held text, which begins at this kind of place."""
        if len(held) > HELD_CHARACTERS_MAX or place == UNKNOWN:
            return
        seams, seam = self.seams[place], held + character
        if seam not in seams:
            _make_room(seams)
            seams[seam] = None
        elif seams[seam] is None:
            found = self._finder.find(_BEFORE[place] + seam, 1, False)
            seams[seam] = found is not None and found[0] <= len(held)


def _make_room(found: dict[str, Any]) -> None:
    if len(found) >= PIECES_MAX:
        found.clear()


class _Places(dict[str, int]):
    def __init__(self, finder: Finder) -> None:
        super().__init__({"": OUTSIDE})
        self._is_inside = finder.is_inside

    def __missing__(self, last: str) -> int:
        if len(last) != 1 or is_invisible(last):
            return UNKNOWN  # invisible characters in a row are counted by the finder
        if len(self) >= PIECES_MAX:
            self.clear()
            self[""] = OUTSIDE  # the beginning of a text
        place = self[last] = INSIDE if self._is_inside(last) else OUTSIDE
        return place
