"""The keys under which the server hands its connection to the application."""

from __future__ import annotations

from starlette.types import Scope

# The scope extensions that api/transport/http.py and api/transport/websocket.py provide.
TRANSPORT = "tailrace.transport"
WIRE = "tailrace.wire"
HANDOVER = "tailrace.handover"


def break_off(scope: Scope) -> None:
    """End a response that cannot be finished, so that the client sees an error, not an end.

    Raises:
        ConnectionAbortedError: there is no transport at hand; the server then closes for us.
    """
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if transport is None:
        raise ConnectionAbortedError("response broken off")
    transport.abort()
