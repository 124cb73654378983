"""The kind `demo`: the built-in model, for trying Tailrace without a model server."""

from __future__ import annotations

from shared.config.kinds.spec import KindSpec

# The backend checks its members itself, because requests may have them, too.
DEMO = KindSpec(name="demo", styles=("exact",), continues_always=True, has_any_member=True)
