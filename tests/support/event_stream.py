"""Server-sent events as a node writes them, for the fake nodes of the terminal commands' tests."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

EVENT_STREAM = "text/event-stream"


async def opened(request: web.Request) -> web.StreamResponse:
    """Begin a stream."""
    response = web.StreamResponse(headers={"content-type": EVENT_STREAM})
    await response.prepare(request)
    return response


def block(event: dict[str, Any]) -> bytes:
    """Return the bytes of one event."""
    members = {name: value for name, value in event.items() if name not in ("id", "type")}
    return f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(members)}\n\n".encode()
