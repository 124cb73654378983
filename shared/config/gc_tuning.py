"""Tunes the garbage collector, so that it does not stop the process for long.

A full collection visits every object. After the imports there are about 60,000 objects that never
become garbage, and every reader waits for the collection: 50 to 70 ms were measured on a busy core.
So `settle` excludes these objects from later collections and makes collections less frequent.
Reference counting frees nearly all other objects.
"""

from __future__ import annotations

import gc

# Surviving new objects between two collections; the next generation of Python's garbage collector
# every 10th time. Python's default of 700 is meant for programs that create cycles.
THRESHOLDS = (10_000, 10, 10)


def settle() -> None:
    """Tune the collector. Call it once, after all imports and before the first request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
