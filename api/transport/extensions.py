"""The keys under which the server gives its connection to the application, and how to abort it.

Knows nothing of protocols or generations.
"""

from __future__ import annotations

from starlette.types import Scope

# Scope extensions that api/transport/http.py and api/transport/websocket.py provide.
TRANSPORT = "tailrace.transport"
WIRE = "tailrace.wire"
# The request is a call of the port for gRPC (api/grpc_port/call.py): its body is one message.
GRPC_CALL = "tailrace.grpc_call"
HANDOVER = "tailrace.handover"
# The key of a large WebSocket message in an ASGI event, in place of `text`
# (api/transport/large_messages.py).
LARGE_MESSAGE = "tailrace.large_message"
# The key in the ASGI event `websocket.accept`; False: this socket never has permessage-deflate
# (api/transport/websocket_deflate.py).
DEFLATE = "tailrace.deflate"
# The key in the ASGI event `websocket.accept`: the most bytes of the first message, also when it is
# inflated. A longer one is dropped while it arrives (api/transport/websocket_large.py).
FIRST_MESSAGE_BYTES = "tailrace.first_message_bytes"
# Not of the server: who asks, as api/edge/admission.py has found.
IDENTITY = "tailrace.identity"
# Not of the server: when the credentials were checked, Unix s.
CHECKED_AT = "tailrace.checked_at"
# Not of the server: breaks off the connections of a deleted share; only with the token of a share.
SHARE_WATCH = "tailrace.share_watch"
# Not of the server: breaks off the connections of a removed key; only with a key of a file.
KEY_WATCH = "tailrace.key_watch"
# Not of the server: the place of a reader whose owner has a limit (api/edge/reader_places.py).
READER_PLACE = "tailrace.reader_place"
# Not an extension of the server: the rest of the limits of a prompt's owner.
ALLOWANCE = "tailrace.allowance"

# Not of the server: why a stream was broken off, a value of `ReadingOutcome`.
OUTCOME = "tailrace.outcome"
# Not of the server: the generation that a request has started, for an answer that is cut off.
GENERATION_ID = "tailrace.generation_id"


def break_off(scope: Scope) -> None:
    """Abort the connection of a response that cannot be finished.

    The client sees a broken connection, not the regular end of the body.

    Raises:
        ConnectionAbortedError: the scope has no transport (another ASGI server); the server then
            closes the connection itself.
    """
    transport = scope.get("extensions", {}).get(TRANSPORT)
    if transport is None:
        raise ConnectionAbortedError("response broken off")
    transport.abort()
