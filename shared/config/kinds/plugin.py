"""Plug-ins: kinds that other packages bring. `backend` names a class, or an entry point.

API nodes and the jobs role read the name and do not import the plug-in; only workers do.
"""

from __future__ import annotations

from shared.config.kinds.spec import KindSpec

# The plug-in checks its members itself, and says whether it can continue an answer.
PLUGIN = KindSpec(name="plugin", styles=("exact",), continues_always=True, has_any_member=True)
