"""A finding of the doctor: one line of its report."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level: ok, warn or FAIL.
        subject: one word, at most 8 characters.
        text: what was found and, if it is not ok, what to do.
    """

    level: str
    subject: str
    text: str
