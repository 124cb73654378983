"""The garbage collector of a process that must not stand still.

A full collection looks at every object there is. After the imports those are some sixty thousand
that will never be garbage, and all readers wait for as long as it takes: 50 to 70 ms were seen on a
busy core. What is there at the start is taken out of its sight, and it looks less often at the
rest: nearly everything here goes when its last reference does.
"""

from __future__ import annotations

import gc

# Of new objects that live on, between two looks; the next generation every 10th time. Python's own
# 700 was chosen for programs that make cycles.
THRESHOLDS = (10_000, 10, 10)


def settle() -> None:
    """To be called once, when everything is loaded and nothing is served yet."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
