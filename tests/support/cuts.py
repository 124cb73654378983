"""The places at which tests cut a recorded stream."""

from __future__ import annotations

import os
import random

STEP = 1 if os.environ.get("CI") else 5


def places(first: int, end: int) -> range:
    """Return the places from `first` to before `end`: in CI each, elsewhere each fifth.

    They begin at a random one, so that further runs try the others. To read a stream once for each
    of its bytes takes quadratic time, and a fault at a cut shows at many places of a stream.
    """
    return range(first + random.randrange(STEP), end, STEP)
