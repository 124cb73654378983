"""Bounds how often one process repeats an action for the same name."""

from __future__ import annotations

import asyncio
from collections import OrderedDict


class Pace:
    """When an action was last taken, for the names of the newest actions.

    Args:
        names_max: beyond that the oldest names are forgotten, so their actions are due again.
    """

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._again_s: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, every_s: float) -> bool:
        """Whether the action is due for a name; if so, the caller takes it now.

        Args:
            every_s: until the next action for this name is due.
        """
        now_s = asyncio.get_running_loop().time()
        if self._again_s.get(name, 0.0) > now_s:
            return False
        self._again_s[name] = now_s + every_s
        self._again_s.move_to_end(name)
        while len(self._again_s) > self._names_max:
            self._again_s.popitem(last=False)
        return True

    def forget(self, name: str) -> None:
        """Let the next action for a name be due at once."""
        self._again_s.pop(name, None)
