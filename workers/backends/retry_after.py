"""How long a failed generation waits before it is tried again. Pure.

A backend may ask for a pause (`Retry-After`). A batch obeys, as far as a prompt may wait for a
worker. A person waits at most `PERSON_WAIT_S_MAX` in all the pauses of a prompt, because some
servers ask for a day: an error is the better answer then.
"""

from __future__ import annotations

PERSON_WAIT_S_MAX = 30.0  # all pauses of one prompt that is not of a batch
# One pause takes at most this part of the remaining `PERSON_WAIT_S_MAX`. A released generation does
# not remember its pauses, so the bounds are those of a geometric series: 20 s, 6.7 s, 2.2 s, …
PAUSE_SHARE = 2 / 3


def retry_pause_s(
    own_s: float, asked_s: float | None, *, failures: int, is_batch: bool, wait_s_max: float
) -> float:
    """Return the pause before the next attempt, s.

    Args:
        own_s: our own pause, which grows with the failures.
        asked_s: what the backend asked for; None: nothing.
        failures: attempts that have failed; 0 counts as 1.
        is_batch: no person waits for the answer.
        wait_s_max: how long a prompt may wait for a worker.
    """
    left_s = PERSON_WAIT_S_MAX * (1 - PAUSE_SHARE) ** max(failures - 1, 0)
    bound_s = wait_s_max if is_batch else min(wait_s_max, left_s * PAUSE_SHARE)
    return min(max(own_s, asked_s or 0.0), bound_s)
