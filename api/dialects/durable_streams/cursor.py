"""The cursor of live responses, by which caches join requests of several readers.

The number of the present interval of 20 s. It always rises: a client that sends the present number
or a later one gets a number behind its own, by a random distance. Pure.
Source: the Durable Streams protocol, "Caching and Collapsing".
"""

from __future__ import annotations

import random
import re

EPOCH_S = 1_728_432_000  # 2024-10-09T00:00:00Z
INTERVAL_S = 20
JITTER_S_MAX = 3_600
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


def next_cursor(sent: str, now_s: float) -> str:
    """Return the cursor of a response.

    Args:
        sent: the cursor that the client sent; empty: none. A text that is no number counts as none.
        now_s: Unix time.
    """
    present = int(now_s - EPOCH_S) // INTERVAL_S
    if _NUMBER.fullmatch(sent) is None or int(sent) < present:
        return str(present)
    jitter_s = random.randint(1, JITTER_S_MAX)
    return str(int(sent) + max(1, -(-jitter_s // INTERVAL_S)))
