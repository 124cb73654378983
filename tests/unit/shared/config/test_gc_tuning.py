"""The collector does not visit objects that were loaded at the start."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
import api.server, workers.main
from shared.config.gc_tuning import THRESHOLDS, settle
before = len(gc.get_objects())
settle()
assert gc.get_threshold() == THRESHOLDS
assert gc.get_freeze_count() > before / 2
assert len(gc.get_objects()) < 1_000, "a full collection has little to look at"
class Node: pass
a = Node(); a.itself = a; del a
assert gc.collect() >= 1, "what comes later is collected"
"""


def test_loaded_objects_are_frozen() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
