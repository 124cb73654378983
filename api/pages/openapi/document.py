"""The OpenAPI 3.1 document: the native interface, and the parts that the other modules describe.

It is written by hand, because a generator cannot derive the streams and the errors. A test checks
that its paths and methods are those of the routes. Data only. Source: docs/protocol.md.
"""

from __future__ import annotations

from typing import Any

from api.pages.openapi import ag_ui as openapi_ag_ui
from api.pages.openapi import ai_sdk as openapi_ai_sdk
from api.pages.openapi import audio as openapi_audio
from api.pages.openapi import backends as openapi_backends
from api.pages.openapi import batches as openapi_batches
from api.pages.openapi import console as openapi_console
from api.pages.openapi import deletions as openapi_deletions
from api.pages.openapi import dialects as openapi_dialects
from api.pages.openapi import durable_streams as openapi_durable_streams
from api.pages.openapi import files as openapi_files
from api.pages.openapi import grpc as openapi_grpc
from api.pages.openapi import lobe_gateway as openapi_lobe_gateway
from api.pages.openapi import producers as openapi_producers
from api.pages.openapi import responses as openapi_responses
from api.pages.openapi import schedules as openapi_schedules
from api.pages.openapi import shares as openapi_shares
from api.pages.openapi import timeline as openapi_timeline
from api.pages.openapi import usage as openapi_usage
from api.pages.openapi.examples import add_examples
from api.pages.openapi.schemas import (
    BEFORE,
    CURSOR_HEADER,
    CURSOR_QUERY,
    GENERATION_NAME,
    HEARTBEAT,
    ID,
    LOCATION,
    OBJECT,
    SCHEMAS,
    SHARED,
    STATUS,
    STREAMS,
    STRING,
    TIMEOUT_HEADER,
    Json,
    answer,
    content,
    errors,
    parameter,
    record,
    ref,
)


def operation(name: str, summary: str, responses: Json, *parameters: Json, **more: Any) -> Json:
    """Return an operation object; `more` are further members of it."""
    described: Json = {"operationId": name, "summary": summary, "responses": responses, **more}
    return {**described, "parameters": list(parameters)} if parameters else described


def page(name: str, summary: str, media_type: str, schema: Json = STRING) -> Json:
    """Return the operation of a GET that needs no credentials and cannot fail."""
    responses = {"200": {"description": summary, "content": content(schema, media_type)}}
    return operation(name, summary, responses, security=[])


STARTED: Json = {"anyOf": [ref("Accepted"), ref("Schedule"), openapi_producers.PRODUCED]}
CREATE = operation(
    "createGeneration",
    "Start a generation; with an Accept that names a stream, the answer is the stream.",
    {
        "200": {
            "description": "The stream; or as JSON what a request with the same key has started.",
            "headers": {
                "Location": LOCATION,
                "X-Generation-Id": GENERATION_NAME,
                "X-Heartbeat-S": HEARTBEAT,
            },
            "content": {**content(STARTED), **STREAMS},
        },
        "201": answer(
            "The new generation of a producer.", openapi_producers.PRODUCED, {"Location": LOCATION}
        ),
        "202": answer("The new generation or schedule.", STARTED, {"Location": LOCATION}),
        "204": answer("A repeat: the generation has ended, and the cursor is its last event."),
        **errors(
            "invalid_json", "cursor_invalid", "idempotency_key_invalid", "model_not_found",
            "not_acceptable", "request_timeout", "expired", "body_too_large",
            "unsupported_media_type", "invalid_request", "idempotency_mismatch",
            "too_many_schedules", "generation_ended", "producer_fenced", "owner_full",
            "too_many_active", "too_many_connections",
            "rate_limited", "quota_exhausted", "draining", "queue_full", "bodies_full", *SHARED,
        ),
    },
    parameter(
        "Idempotency-Key",
        "header",
        "A repeated request with the same key and body gets the same generation.",
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
    ),
    CURSOR_HEADER,
    CURSOR_QUERY,
    TIMEOUT_HEADER,
    requestBody={"required": True, "content": content(ref("NewGeneration"))},
)  # fmt: skip

EVENTS = operation(
    "readEvents",
    "Read the events, from the start or after a cursor: as SSE, as NDJSON, or as a long poll (with "
    "an Accept of JSON or a `wait`).",
    {
        "200": {
            "description": "The events; a `reset` with id `0-0` if the cursor is not in the log.",
            "headers": {"X-Heartbeat-S": HEARTBEAT},
            "content": {**STREAMS, **content(ref("Poll"))},
        },
        "204": answer("The generation has ended, and the cursor is its last event."),
        **errors(
            "cursor_invalid", "wait_invalid", "not_found", "not_acceptable", "expired",
            "too_many_connections", "draining", *SHARED,
        ),
    },
    ID,
    CURSOR_HEADER,
    CURSOR_QUERY,
    parameter(
        "wait",
        "query",
        "Long poll: seconds to wait for an event after the cursor.",
        {"type": "number", "minimum": 0, "maximum": 60},
    ),
)  # fmt: skip

SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, a JSON web token, or the token of a share.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
    "xApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "query": {"type": "apiKey", "in": "query", "name": "access_token"},
}

PATHS: Json = {
    "/v1/generations": {
        "post": CREATE,
        "get": operation(
            "listGenerations",
            "The owner's generations, newest first.",
            {
                "200": answer("A page.", ref("Generations")),
                **errors("cursor_invalid", *SHARED),
            },
            parameter("active", "query", "`1`: only unfinished generations of the page.", STRING),
            parameter("owner", "query", "For operators: an owner, or `*`.", STRING),
            BEFORE,
        ),
    },
    "/v1/generations/{id}": {
        "get": operation(
            "getGeneration",
            "A generation, with its text so far.",
            {
                "200": answer("The generation.", ref("Generation")),
                **errors("not_found", "expired", *SHARED),
            },
            ID,
        ),
        "delete": operation(
            "deleteGeneration",
            "Delete a generation on every node. Its readers get an end.",
            {
                "200": answer("Deleted.", record({"id": STRING, "deleted": {"const": True}})),
                **errors("not_found", *SHARED),
            },
            ID,
        ),
    },
    "/v1/generations/{id}/cancel": {
        "post": operation(
            "cancelGeneration",
            "Cancel a generation. An ended generation does not change. May be repeated.",
            {
                "202": answer("Its present status.", record({"id": STRING, "status": STATUS})),
                **errors("not_found", *SHARED),
            },
            ID,
        )
    },
    "/v1/generations/{id}/events": {"get": EVENTS, "post": openapi_producers.APPEND_EVENTS},
    **openapi_timeline.PATHS,
    **openapi_producers.PATHS,
    **openapi_audio.PATHS,
    "/v1/sessions/{session}": {
        "get": operation(
            "getSession",
            "The generations of a session, newest first.",
            {
                "200": answer("A page.", ref("Generations")),
                **errors("cursor_invalid", "not_found", *SHARED),
            },
            parameter("session", "path", "The session's name, percent-encoded.", STRING),
            BEFORE,
        ),
        **openapi_deletions.SESSION,
    },
    **openapi_deletions.PATHS,
    **openapi_ai_sdk.PATHS,
    **openapi_ag_ui.PATHS,
    **openapi_dialects.PATHS,
    **openapi_lobe_gateway.PATHS,
    **openapi_grpc.PATHS,
    **openapi_durable_streams.PATHS,
    **openapi_responses.PATHS,
    **openapi_batches.PATHS,
    **openapi_files.PATHS,
    **openapi_schedules.PATHS,
    **openapi_shares.PATHS,
    **openapi_usage.PATHS,
    **openapi_console.PATHS,
    **openapi_backends.PATHS,
    "/v1/workers": {
        "get": operation(
            "listWorkers",
            "The workers, and the depth of each queue. For operators.",
            {"200": answer("All workers and queues.", ref("Workers")), **errors(*SHARED)},
        )
    },
    "/v1/ws": {
        "get": operation(
            "openSocket",
            "WebSocket, subprotocol `tailrace.v1`: many generations over one connection.",
            {
                "101": answer("Switching protocols."),
                **errors("upgrade_required", "unauthorized", "forbidden", "too_many_connections"),
                "426": answer("The WebSocket version is not 13."),
            },
        )
    },
    "/livez": {
        "get": operation(
            "live",
            "Whether the process runs.",
            {"200": answer("Yes.", ref("Health"))},
            security=[],
        )
    },
    "/readyz": {
        "get": operation(
            "ready",
            "Whether this node would answer a prompt.",
            {"200": answer("Yes.", ref("Health")), "503": answer("No.", ref("Health"))},
            security=[],
        )
    },
    "/metrics": {
        "get": operation(
            "metrics",
            "Metrics for Prometheus. For operators.",
            {
                "200": {"description": "All metrics.", "content": content(STRING, "text/plain")},
                **errors("host_invalid", "unauthorized", "forbidden"),
            },
        )
    },
    "/openapi.json": {"get": page("openapi", "This document.", "application/json", OBJECT)},
    "/docs": {"get": page("docs", "This document as a page.", "text/html")},
    "/console": {"get": page("console", "The operators' console.", "text/html")},
    "/": {"get": page("chat", "A chat page.", "text/html")},
    "/page/{name}": {
        "get": {
            **page("asset", "A file that the pages load.", "text/javascript"),
            "parameters": [parameter("name", "path", "The file's name.", STRING)],
            "responses": {
                "200": {
                    "description": "The file.",
                    "content": {
                        **content(STRING, "text/javascript"),
                        **content(STRING, "text/css"),
                        **content(STRING, "text/html"),
                        **content(STRING, "text/plain"),
                        **content(STRING, "font/woff2"),
                    },
                },
                **errors("not_found"),
            },
        }
    },
}

PATHS = add_examples(PATHS)

# HEAD answers like GET, without a body.
for _path in PATHS.values():
    if "get" in _path:
        _path["head"] = {
            **_path["get"],
            "operationId": "head" + _path["get"]["operationId"][0].upper()
            + _path["get"]["operationId"][1:],
            "responses": {
                status: {k: v for k, v in response.items() if k != "content"}
                for status, response in _path["get"]["responses"].items()
            },
        }  # fmt: skip

DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Tailrace",
        "version": "1",
        "description": "Send a prompt to any node; read a resumable token stream from any node.",
    },
    "paths": PATHS,
    "components": {
        "schemas": SCHEMAS
        | openapi_ai_sdk.SCHEMAS
        | openapi_ag_ui.SCHEMAS
        | openapi_dialects.SCHEMAS
        | openapi_responses.SCHEMAS
        | openapi_batches.SCHEMAS
        | openapi_files.SCHEMAS
        | openapi_schedules.SCHEMAS
        | openapi_timeline.SCHEMAS,
        "securitySchemes": SECURITY_SCHEMES,
    },
    # `{}`: no credentials, if none are configured.
    "security": [{}, *({name: []} for name in SECURITY_SCHEMES)],
}
