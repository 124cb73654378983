"""Which scope a request needs: one table of all routes, and one of all frames of sockets.

A route without a row here stops the start of a node (api/app.py), so a new route cannot be open by
mistake. Some requests need more than their row says, because only their body shows it: a start with
`run_at` or `cron` also needs `schedules`. Source: docs/protocol.md, "Scopes".
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.credentials import ADMIN, BATCH, GENERATE, READ, SCHEDULES

PUBLIC = "public"  # needs no credentials
ANY = "any"  # needs good credentials, whatever their scopes

# Path -> method -> what it needs. HEAD needs what GET needs.
ROUTES: Mapping[str, Mapping[str, str]] = {
    "/v1/generations": {"GET": READ, "POST": GENERATE},
    "/v1/generations/{id}": {"GET": READ, "DELETE": GENERATE},
    "/v1/generations/{id}/cancel": {"POST": GENERATE},
    "/v1/generations/{id}/timeline": {"GET": READ},
    "/v1/generations/{id}/events": {"GET": READ, "POST": GENERATE},
    "/v1/generations/{id}/audio": {"GET": GENERATE, "POST": GENERATE},
    "/v1/generations/{id}/producer": {"POST": GENERATE},
    "/v1/sessions/{session:path}": {"GET": READ, "DELETE": GENERATE},
    "/v1/owners/{owner:path}": {"DELETE": ADMIN},
    "/v1/models": {"GET": ANY},
    "/v1/models/{model:path}": {"GET": ANY},
    "/models": {"GET": ANY},
    "/models/{model:path}": {"GET": ANY},
    "/v1/files": {"GET": BATCH, "POST": BATCH},
    "/v1/files/{id}": {"GET": BATCH, "DELETE": BATCH},
    "/v1/files/{id}/content": {"GET": BATCH},
    "/v1/schedules": {"GET": SCHEDULES},
    "/v1/schedules/{id}": {"GET": SCHEDULES, "DELETE": SCHEDULES},
    "/v1/batches": {"GET": BATCH, "POST": BATCH},
    "/v1/batches/{id}": {"GET": BATCH},
    "/v1/batches/{id}/cancel": {"POST": BATCH},
    "/v1/batches/{id}/redrive": {"POST": BATCH},
    "/v1/batches/{id}/dead_letters": {"GET": BATCH},
    "/v1/batches/{id}/events": {"GET": BATCH},
    "/v1/share": {"POST": GENERATE},
    "/v1/share/{id}": {"DELETE": GENERATE},
    "/v1/usage": {"GET": READ},
    "/v1/workers": {"GET": ADMIN},
    "/v1/backends": {"GET": ADMIN},
    "/v1/console": {"GET": ADMIN},
    "/v1/console/generations/cancel": {"POST": ADMIN},
    "/v1/console/webhooks/redrive": {"POST": ADMIN},
    "/v1/console/generations/{id}": {"GET": ADMIN},
    "/v1/console/generations/{id}/request": {"GET": ADMIN},
    "/v1/console/generations/{id}/log": {"GET": ADMIN},
    "/v1/console/generations/{id}/cancel": {"POST": ADMIN},
    "/v1/console/generations/{id}/replay": {"POST": ADMIN},
    "/v1/console/workers/{id}/drain": {"POST": ADMIN},
    "/v1/console/batches/redrive": {"POST": ADMIN},
    "/v1/console/batches/{id}/redrive": {"POST": ADMIN},
    "/metrics": {"GET": ADMIN},
    "/livez": {"GET": PUBLIC},
    "/readyz": {"GET": PUBLIC},
    "/openapi.json": {"GET": PUBLIC},
    "/docs": {"GET": PUBLIC},
    "/": {"GET": PUBLIC},
    "/console": {"GET": PUBLIC},  # the empty page; what it shows needs `admin`
    "/page/{name}": {"GET": PUBLIC},
    "/v1/chat/completions": {"POST": GENERATE},
    "/chat/completions": {"POST": GENERATE},
    "/v1/responses": {"GET": PUBLIC, "POST": GENERATE},  # GET: the socket, see below
    "/v1/responses/{id}": {"GET": READ, "DELETE": GENERATE},
    "/v1/responses/{id}/cancel": {"POST": GENERATE},
    "/v1/responses/{id}/input_items": {"GET": READ},
    "/ai-sdk/chat": {"POST": GENERATE},
    "/ai-sdk/chat/{name}/stream": {"GET": READ},
    "/ai-sdk/chat/{name}/stop": {"POST": GENERATE},
    "/deep-chat": {"POST": GENERATE},
    "/tailrace.v1.Tailrace/Generate": {"POST": GENERATE},
    "/tailrace.v1.Tailrace/Start": {"POST": GENERATE},
    "/tailrace.v1.Tailrace/Attach": {"POST": READ},
    "/tailrace.v1.Tailrace/Get": {"POST": READ},
    "/tailrace.v1.Tailrace/Cancel": {"POST": GENERATE},
    "/tailrace.v1.Tailrace/Session": {"POST": READ},
    "/ds/v1/stream/generations/{id}": {"GET": READ},
    "/ds/v1/stream/__ds/jwks.json": {"GET": PUBLIC},
    "/ds/v1/stream/__ds/subscriptions/{id}": {"GET": READ, "PUT": GENERATE, "DELETE": GENERATE},
    "/ds/v1/stream/__ds/subscriptions/{id}/streams": {"POST": GENERATE},
    "/ds/v1/stream/__ds/subscriptions/{id}/streams/{path:path}": {"DELETE": GENERATE},
    "/ds/v1/stream/__ds/subscriptions/{id}/claim": {"POST": GENERATE},
    # The token of a wake is checked by the handlers.
    "/ds/v1/stream/__ds/subscriptions/{id}/callback": {"POST": PUBLIC},
    "/ds/v1/stream/__ds/subscriptions/{id}/ack": {"POST": PUBLIC},
    "/ds/v1/stream/__ds/subscriptions/{id}/release": {"POST": PUBLIC},
    "/ds/v1/stream/{path:path}": {
        "GET": READ,
        "PUT": GENERATE,
        "POST": GENERATE,
        "DELETE": GENERATE,
    },
    "/ag-ui/{agent:path}": {"POST": GENERATE},
    "/ag-ui/{agent:path}/runs/{id}/stream": {"GET": READ},
    "/ag-ui/{agent:path}/runs/{id}/cancel": {"POST": GENERATE},
    "/api/agent/stream": {"GET": READ},
    "/lobe-gateway/health": {"GET": PUBLIC},
    "/lobe-gateway/api/operations/init": {"POST": GENERATE},
    "/lobe-gateway/api/operations/push-event": {"POST": GENERATE},
    "/lobe-gateway/api/operations/push-events": {"POST": GENERATE},
    "/lobe-gateway/api/operations/update-status": {"POST": GENERATE},
    "/lobe-gateway/api/operations/tool-execute": {"POST": GENERATE},
    "/lobe-gateway/api/operations/request-confirmation": {"POST": GENERATE},
    "/lobe-gateway/api/operations/request-input": {"POST": GENERATE},
    "/lobe-gateway/api/operations/status": {"GET": GENERATE},
    # A plain GET of a socket's path is always refused.
    "/v1/ws": {"GET": PUBLIC},
    "/ai-sdk/ws": {"GET": PUBLIC},
    "/deep-chat/ws": {"GET": PUBLIC},
    "/lobe/ws": {"GET": PUBLIC},
    "/lobe-gateway/ws": {"GET": PUBLIC},
    "/lobe-gateway/v2/ws": {"GET": PUBLIC},
}

# Only a node of `tailrace up` has these routes (api/resources/faults.py).
FAULT_ROUTES: Mapping[str, Mapping[str, str]] = {
    "/v1/break": {"GET": ADMIN},
    "/v1/break/{what}": {"GET": ADMIN, "POST": ADMIN},
}

# The routes that the token of a share may use, beside the public ones; all others refuse it.
SHARED = frozenset(
    {
        ("/v1/generations/{id}", "GET"),
        ("/v1/generations/{id}/events", "GET"),
        ("/v1/sessions/{session:path}", "GET"),
        ("/v1/responses/{id}", "GET"),
        ("/v1/responses/{id}/input_items", "GET"),
        ("/v1/responses", "GET"),
        ("/tailrace.v1.Tailrace/Attach", "POST"),
        ("/tailrace.v1.Tailrace/Get", "POST"),
        ("/tailrace.v1.Tailrace/Session", "POST"),
        ("/ds/v1/stream/generations/{id}", "GET"),
        ("/v1/ws", "GET"),
        ("/ai-sdk/chat/{name}/stream", "GET"),
        ("/ag-ui/{agent:path}/runs/{id}/stream", "GET"),
        ("/ai-sdk/ws", "GET"),
        ("/lobe/ws", "GET"),
        ("/api/agent/stream", "GET"),
        ("/lobe-gateway/ws", "GET"),
        ("/lobe-gateway/v2/ws", "GET"),
    }
)

EVERY_FRAME = ""  # stands for every frame of a socket

# Path of a socket -> kind of a frame -> what it needs.
# The handshake needs good credentials.
FRAMES: Mapping[str, Mapping[str, str]] = {
    "/v1/ws": {
        "start": GENERATE,
        "subscribe": READ,
        "unsubscribe": ANY,
        "cancel": GENERATE,
        "ping": ANY,
        "auth": ANY,
        "hello": ANY,
        "audio": GENERATE,
        "audio_state": GENERATE,
    },
    "/v1/responses": {
        "response.create": GENERATE,
        "response.resume": READ,
        "response.cancel": GENERATE,
        "response.steer": GENERATE,
        "response.processed": ANY,
    },
    "/ai-sdk/ws": {"send": GENERATE, "resume": READ, "abort": GENERATE},
    "/deep-chat/ws": {EVERY_FRAME: GENERATE},
    "/lobe-gateway/ws": {
        "auth": ANY,
        "resume": READ,
        "tool_result": GENERATE,
        "tool_confirmation": GENERATE,
        "user_input": GENERATE,
        "interrupt": GENERATE,
        "heartbeat": ANY,
    },
    "/lobe-gateway/v2/ws": {
        "subscribe": READ,
        "unsubscribe": ANY,
        "tool_result": GENERATE,
        "tool_confirmation": GENERATE,
        "user_input": GENERATE,
        "interrupt": GENERATE,
        "heartbeat": ANY,
    },
    "/lobe/ws": {
        "startConversation": GENERATE,
        "resume": READ,
        "cancel": GENERATE,
        "ping": ANY,
    },
}
