"""The classes that other packages bring: named in the models file, or by entry points.

API nodes and the jobs role read only the names; only workers import the classes.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points

CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)  # package.module:Class
BACKEND_GROUP, STAGE_GROUP = "tailrace.backends", "tailrace.stages"  # of entry points


@cache
def plugin_names(group: str) -> dict[str, str]:
    """Return the entry points of installed packages: the class of each name."""
    return {point.name: point.value for point in entry_points(group=group)}


def plugin_class(group: str, name: str) -> str:
    """Return the class that `name` stands for, `package.module:Class`; empty: for none."""
    return name if CLASS.fullmatch(name) else plugin_names(group).get(name, "")
