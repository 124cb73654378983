"""Plug-ins: kinds that other packages bring. `backend` names a class, or an entry point.

API nodes and the jobs role read the name and do not import the plug-in; only workers do.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import entry_points

from shared.config.kinds.spec import KindSpec

GROUP = "tailrace.backends"  # of entry points
CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)  # package.module:Class

# The plug-in checks its members itself, and says whether it can continue an answer.
PLUGIN = KindSpec(name="plugin", styles=("exact",), continues_always=True, has_any_member=True)


@cache
def plugin_names() -> dict[str, str]:
    """Return the entry points of installed packages: the class of each name."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def class_of(backend: str) -> str:
    """Return the class that `backend` names, as `package.module:Class`; empty: no plug-in."""
    return backend if CLASS.fullmatch(backend) else plugin_names().get(backend, "")
