"""The kind of a table with `route`: it has no server, the tables that it names have one each.

It is not in `KINDS`, because `backend = "route"` is no way to write such a table.
"""

from __future__ import annotations

from shared.config.kinds.spec import KindSpec

ROUTE = KindSpec(name="route")
