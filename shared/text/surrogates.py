"""Makes a text of half surrogate pairs encodable as UTF-8. Pure. Source: RFC 8259, section 8.2."""

from __future__ import annotations


def join_halves(text: str) -> str:
    """Return `text` with each pair of halves as one character, and each lone half as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
