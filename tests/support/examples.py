"""How many cases the expensive searches try."""

from __future__ import annotations

import os


def examples(number: int, *, in_ci: int) -> int:
    """Return the number of cases of a search: more in CI, which tries the same ones each time."""
    return in_ci if os.environ.get("CI") else number
