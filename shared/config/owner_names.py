"""Which names an owner may have who is not named by a key: the subject of a token, or of a header.

Such a name comes from outside, so it must not be mistaken for a name that this system uses itself,
and must not be able to stand for two parts of a key in Redis. Pure.
"""

from __future__ import annotations

import unicodedata

from shared.config.credentials import ANONYMOUS, EVERYBODY

CHARACTERS_MAX = 256
_RESERVED = frozenset({ANONYMOUS, EVERYBODY})
_RESERVED_BEGINNINGS = ("tr:", "tailrace:")  # as keys in Redis begin


def owner_name_problem(name: object) -> str:
    """Return what is wrong with a name, for a message; "": nothing is.

    A name is compared in its compatibility form and without upper case, so that a name that only
    looks like a reserved one is refused too.
    """
    if not isinstance(name, str):
        return "must be a string"
    if not 0 < len(name) <= CHARACTERS_MAX:
        return f"must have 1 to {CHARACTERS_MAX} characters"
    if any(map(_is_unusual, name)):
        return "must have no control, format or unusual space characters"
    if name != name.strip():
        return "must not begin or end with a space"
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    if plain in _RESERVED or plain.startswith(_RESERVED_BEGINNINGS):
        return "is a name that this system uses itself"
    return ""


def _is_unusual(character: str) -> bool:
    # "C": controls, invisible format characters, surrogates, characters without a meaning.
    # "Z": separators of lines and paragraphs, and all spaces; only the plain space may stand.
    return unicodedata.category(character)[0] in "CZ" and character != " "
