"""One log line for each request, for a person who watches a node: TAILRACE_REQUEST_LOG=on.

The line is written when the answer begins, because a stream may last for hours. It has the path
without the query, which may hold ?access_token=. Successful requests for page files, faults, probes
and metrics have no line. With the setting off, a node does no extra work.
"""

from __future__ import annotations

import logging

from starlette.types import Message, Scope

from api.transport.extensions import GENERATION_ID

logger = logging.getLogger(__name__)

PATH_CHARACTERS_MAX = 200
OWN_PATHS = ("/page/", "/v1/break", "/livez", "/readyz", "/metrics")


def log_request(scope: Scope, message: Message) -> None:
    """Log an answer by its first message."""
    path: str = scope.get("path", "")
    status = message.get("status", 101 if message["type"] == "websocket.accept" else 0)
    if status < 400 and path.startswith(OWN_PATHS):
        return
    data = {
        "method": scope.get("method", "WS"),
        "path": path[:PATH_CHARACTERS_MAX],
        "status": status,
    }
    if generation_id := scope.get(GENERATION_ID):
        data["generation_id"] = generation_id
    logger.info("request", extra=data)
