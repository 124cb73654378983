"""AG-UI's part of the OpenAPI document: data, written by hand.

Source: docs/dialects/ag-ui.md.
"""

from __future__ import annotations

from api.pages.openapi.dialects import BAD_BODY, COMMON, EVENT_STREAM, IDEMPOTENCY_KEY
from api.pages.openapi.schemas import (
    GENERATION_NAME,
    SESSION_PATTERN,
    SHARED,
    STRING,
    TIMEOUT_HEADER,
    Json,
    answer,
    array,
    content,
    errors,
    nullable,
    parameter,
    record,
    ref,
)

NAME = {"type": "string", "minLength": 1}
AGENT = parameter("agent", "path", "A model.", NAME)
RUN = parameter("id", "path", "A generation, or a `runId` with `threadId`.", NAME)
THREAD = parameter("threadId", "query", "The thread of a `runId`.", STRING)
LAST_EVENT = parameter(
    "last-event-id", "header", "The number of the last event that was seen.",
    {"type": "string", "pattern": "^[0-9]{0,15}$"},
)  # fmt: skip
RUN_NAME: Json = {"type": "string", "maxLength": 256, "pattern": SESSION_PATTERN}
MESSAGE: Json = {
    "description": "Also assistant, tool, reasoning and activity: docs/dialects/ag-ui.md.",
    **record({"role": {"enum": ["system", "developer", "user"]}, "content": NAME}, {"id": STRING}),
}

SCHEMAS: Json = {
    "RunAgentInput": record(
        {
            "threadId": RUN_NAME,
            "runId": RUN_NAME | {"minLength": 1},
            "messages": array(MESSAGE) | {"minItems": 1},
        },
        {
            "tools": nullable(array(record({"name": NAME}, {"description": STRING}))),
            "context": nullable(array(record({"description": STRING, "value": STRING}))),
            "state": {},
            "forwardedProps": {},
            "protocolVersion": nullable(STRING),
            **{name: schema for name, schema in COMMON.items() if name != "model"},
        },
    ),
    "RunError": record({"type": {"const": "RUN_ERROR"}, "message": STRING, "code": STRING}),
    "CancelledRun": record({"id": STRING, "status": STRING}),
}


def _errors(*codes: str) -> Json:
    """Return the responses of error codes; their bodies are the event RUN_ERROR."""
    described = errors(*codes)
    for status in described.values():
        status["content"] = content(ref("RunError"))
    return described


ANSWER: Json = {
    "description": "The events of the run; the last one is RUN_FINISHED or RUN_ERROR.",
    "headers": {"X-Generation-Id": GENERATION_NAME},
    "content": EVENT_STREAM | content(
        {"type": "string", "format": "binary"}, "application/vnd.ag-ui.event+proto"
    ),
}  # fmt: skip

PATHS: Json = {
    "/ag-ui/{agent}": {
        "post": {
            "operationId": "runAgUiAgent",
            "summary": "AG-UI: run an agent, streamed. A second request for a run reads the same.",
            "parameters": [AGENT, IDEMPOTENCY_KEY, TIMEOUT_HEADER],
            "requestBody": {"required": True, "content": content(ref("RunAgentInput"))},
            "responses": {"200": ANSWER, **_errors(*BAD_BODY, *SHARED)},
        }
    },
    "/ag-ui/{agent}/runs/{id}/stream": {
        "get": {
            "operationId": "readAgUiRun",
            "summary": "AG-UI: the events of a run after a number, on any node.",
            "parameters": [AGENT, RUN, THREAD, LAST_EVENT],
            "responses": {
                "200": ANSWER,
                "204": answer("The client has seen the last event."),
                **_errors(
                    "cursor_invalid", "not_found",  "stream_reset", "expired",
                    "too_many_connections", "draining", *SHARED,
                ),
            },
        }
    },
    "/ag-ui/{agent}/runs/{id}/cancel": {
        "post": {
            "operationId": "cancelAgUiRun",
            "summary": "AG-UI: end a run.",
            "parameters": [AGENT, RUN, THREAD],
            "responses": {
                "202": answer("It ends.", ref("CancelledRun")),
                **_errors("not_found", *SHARED),
            },
        }
    },
}  # fmt: skip
