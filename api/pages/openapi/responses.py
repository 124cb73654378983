"""The part of the OpenAPI document about OpenAI's Responses: data, written by hand.

Source: docs/protocol.md, "Responses".
"""

from __future__ import annotations

from api.pages.openapi.dialects import (
    BAD_BODY,
    FAILED,
    IDEMPOTENCY_KEY,
    OPENAI_COMMON,
    socket,
)
from api.pages.openapi.schemas import (
    GENERATION_NAME,
    INTEGER,
    OBJECT,
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

BOOLEAN: Json = {"type": ["boolean", "null"]}
TEXT: Json = {"type": ["string", "null"]}
# OpenAI's SDKs write true and false so; other query parameters of OpenAI's are ignored.
TRUTH: Json = {"enum": ["true", "false"]}
ID = parameter(
    "id", "path", "The response.", {"type": "string", "pattern": "^resp_[A-Za-z0-9_-]{4,60}$"}
)
GONE = ("not_found", "expired")
ITEM_TEXT: Json = record({"type": {"enum": ["input_text", "output_text"]}, "text": STRING})

SCHEMAS: Json = {
    "InputItem": {
        "anyOf": [
            record(
                {
                    "role": {"enum": ["user", "assistant", "system", "developer"]},
                    "content": {
                        "anyOf": [STRING, {"type": "array", "minItems": 1, "items": ITEM_TEXT}]
                    },
                },
                {"type": {"enum": ["message", None]}},
            ),
            record(
                {
                    "type": {"const": "function_call_output"},
                    "call_id": STRING,
                    "output": STRING,
                }
            ),
            record(
                {
                    "type": {"const": "function_call"},
                    "call_id": STRING,
                    "name": STRING,
                    "arguments": STRING,
                }
            ),
        ],
        "description": "Also images, files and audio in OpenAI's shapes.",
    },
    "NewResponse": record(
        {"input": {"anyOf": [STRING, {**array(ref("InputItem")), "minItems": 1}]}},
        {
            **OPENAI_COMMON,
            "instructions": TEXT,
            "stream": BOOLEAN,
            "background": {**BOOLEAN, "description": "`true`: a disconnect does not cancel it."},
            "store": {
                "enum": [True, None],
                "description": "`false`: later requests for this response are answered 404.",
            },
            "max_output_tokens": {"type": ["integer", "null"], "minimum": 1, "maximum": 10**9},
            "tools": {
                "type": ["array", "null"],
                "items": {
                    "anyOf": [
                        record(
                            {"type": {"const": "function"}, "name": STRING},
                            {"parameters": {"type": ["object", "null"]}},
                        ),
                        record(
                            {"type": {"const": "custom"}, "name": STRING},
                            {"description": TEXT, "format": {"type": ["object", "null"]}},
                        ),
                        record({"type": {**STRING, "not": {"enum": ["function", "custom"]}}}),
                    ]
                },
                "description": "A tool that is neither a function nor a custom tool is left out: "
                "`X-Tailrace-Ignored`.",
            },
            "reasoning": {
                "type": ["object", "null"],
                "properties": {"effort": TEXT, "summary": {"type": ["string", "null"]}},
            },
            "previous_response_id": {
                "type": "null",
                "description": "Or the id of an ended response.",
            },
            "text": {"type": ["object", "null"], "properties": {"format": {"type": "null"}}},
            "conversation": {"type": "null"},
            "prompt": {"type": "null"},
        },
    )
    | {"description": "Further members go to the backend: temperature, top_p, …"},
    "Response": record(
        {
            "id": STRING,
            "object": {"const": "response"},
            "created_at": INTEGER,
            "status": {
                "enum": [
                    "queued", "in_progress", "completed", "incomplete", "cancelled", "failed",
                ]
            },
            "background": {"type": "boolean"},
            "model": STRING,
            "output": array(OBJECT),
            "error": nullable(record({"code": STRING, "message": STRING})),
            "usage": nullable(OBJECT),
            "metadata": OBJECT,
            "store": {"type": "boolean"},
        }
    ),
    "InputItems": record(
        {
            "object": {"const": "list"},
            "data": array(OBJECT),
            "first_id": nullable(STRING),
            "last_id": nullable(STRING),
            "has_more": {"type": "boolean"},
        }
    ),
    "DeletedResponse": record(
        {"id": STRING, "object": {"const": "response"}, "deleted": {"const": True}}
    ),
}  # fmt: skip
EVENT = record({"event": STRING, "data": {**STRING, "description": "JSON with `sequence_number`."}})
STREAM_OR_OBJECT: Json = {**content(ref("Response")), **content(EVENT, "text/event-stream")}

PATHS: Json = {
    "/v1/responses": {
        "get": socket(
            "openResponsesSocket",
            "WebSocket: OpenAI's WebSocket mode of Responses, with resume on any node.",
            "OpenAiError",
        ),
        "post": {
            "operationId": "createResponse",
            "summary": "OpenAI's Responses: as a stream, as one object, or in the background.",
            "parameters": [IDEMPOTENCY_KEY, TIMEOUT_HEADER],
            "requestBody": {"required": True, "content": content(ref("NewResponse"))},
            "responses": {
                "200": {
                    "description": "The response; in the background, its present state.",
                    "headers": {
                        "X-Generation-Id": GENERATION_NAME,
                        "X-Tailrace-Ignored": {
                            "description": "The parts of the body that the backend does not get.",
                            "schema": STRING,
                        },
                    },
                    "content": STREAM_OR_OBJECT,
                },
                **errors(*BAD_BODY, *SHARED, schema="OpenAiError"),
                "500": FAILED | {"description": "The generation was lost."},
                "502": FAILED,
                "504": FAILED | {"description": "The backend did not answer in time."},
            },
        }
    },
    "/v1/responses/{id}": {
        "get": {
            "operationId": "getResponse",
            "summary": "The present state of a response, or its events.",
            "parameters": [
                ID,
                parameter("stream", "query", "`true`: its events, from the first.", TRUTH),
                parameter(
                    "starting_after",
                    "query",
                    "With `stream=true`: the events after this `sequence_number`.",
                    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
                )
                | {"allowEmptyValue": True},
            ],
            "responses": {
                "200": {"description": "The response.", "content": STREAM_OR_OBJECT},
                **errors(
                    *GONE, "invalid_request", "stream_reset", "too_many_connections", "draining",
                    *SHARED,
                    schema="OpenAiError",
                ),
            },
        },
        "delete": {
            "operationId": "deleteResponse",
            "summary": "Cancel a response and delete its generation, for all dialects.",
            "parameters": [ID],
            "responses": {
                "200": answer("Deleted.", ref("DeletedResponse")),
                **errors(*GONE, *SHARED, schema="OpenAiError"),
            },
        },
    },
    "/v1/responses/{id}/cancel": {
        "post": {
            "operationId": "cancelResponse",
            "summary": "Cancel a response; its output so far is kept. May be repeated.",
            "parameters": [ID],
            "responses": {
                "200": answer("The response.", ref("Response")),
                **errors(*GONE, *SHARED, schema="OpenAiError"),
            },
        }
    },
    "/v1/responses/{id}/input_items": {
        "get": {
            "operationId": "listInputItems",
            "summary": "The input of a response, newest first.",
            "parameters": [
                ID,
                parameter(
                    "limit",
                    "query",
                    "Items of a page.",
                    {"type": "integer", "minimum": 1, "maximum": 100},
                ),
                parameter(
                    "order", "query", "By age; default `desc`.", {"enum": ["asc", "desc"]}
                ),
                parameter("after", "query", "`last_id` of the previous page.", STRING),
            ],
            "responses": {
                "200": answer("A page.", ref("InputItems")),
                **errors(*GONE, "invalid_request", *SHARED, schema="OpenAiError"),
            },
        }
    },
}  # fmt: skip
