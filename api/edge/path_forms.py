"""Reads the path of a request that fits no route: spare slashes, and OpenAI paths without /v1.

People type base URLs: with a slash at the end, or without `/v1`. A path that fits a route is never
changed, because the names of sessions and models may contain slashes. So the route of a model tries
the name as it came, and then without spare slashes (`mend_name`). Only OpenAI paths are mended:
`//metrics` must not pass an operator's rule for `/metrics` in a proxy.
"""

from __future__ import annotations

import re
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

# A path is mended if one of these follows `/v1/`, or begins the path.
MENDED_RESOURCES = ("chat", "responses", "models", "files", "batches")
_SLASHES = re.compile("/{2,}")


class PathForms:
    """The router's default: routes the mended path once more.

    Args:
        not_found: called for a path that cannot be mended.

    Attributes:
        router: set after the router has been built.
    """

    def __init__(self, not_found: ASGIApp) -> None:
        self.router: ASGIApp | None = None
        self.not_found = not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        mended = mend_path(path)
        if self.router is None or mended is None or mended == path:
            await self.not_found(scope, receive, send)
            return
        # In place: the error boundary takes the shape of an error from the path.
        changes: dict[str, Any] = {"path": mended}
        if raw := scope.get("raw_path"):
            changes["raw_path"] = (mend_path(raw.decode("latin-1")) or mended).encode("latin-1")
        scope.update(changes)
        await self.router(scope, receive, send)


def mend_path(path: str) -> str | None:
    """Return the path without spare slashes and with `/v1`; None: it is no OpenAI path."""
    below = mend_name(path).removeprefix("v1/")
    return f"/v1/{below}" if below.partition("/")[0] in MENDED_RESOURCES else None


def mend_name(name: str) -> str:
    """Return the end of a path without slashes at its ends and without doubled slashes."""
    return _SLASHES.sub("/", name).strip("/")
