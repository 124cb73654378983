"""The AI SDK's part of the OpenAPI document: data, written by hand.

Source: docs/protocol.md, "AI SDK".
"""

from __future__ import annotations

from api.pages.openapi.dialects import BAD_BODY, COMMON, EVENT_STREAM, IDEMPOTENCY_KEY, socket
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

NAME = parameter(
    "name", "path", "The id of a chat or of a run.", {"type": "string", "minLength": 1}
)
START_INDEX = parameter(
    "startIndex",
    "query",
    "The number of the first chunk to send; a negative number counts from the end.",
    {"type": "integer", "minimum": -(10**15 - 1), "maximum": 10**15 - 1},
)
RUN: Json = {"description": "The run: the generation's id.", "schema": STRING}

SCHEMAS: Json = {
    "NewAiSdkChat": record(
        {
            "messages": array(
                record(
                    {"role": {"enum": ["system", "user", "assistant"]}, "parts": array(OBJECT)},
                    {"id": STRING},
                )
            )
            | {"minItems": 1}
        },
        {
            "id": nullable({"type": "string", "maxLength": 4096}),
            "resetStep": {"type": ["boolean", "null"]},
            "params": {"type": ["object", "null"]},
            **COMMON,
        },
    ),
}


def _text_errors(*codes: str) -> Json:
    """Return the responses of error codes; the bodies of this dialect are plain text."""
    described = errors(*codes)
    for status in described.values():
        status["content"] = content(STRING, "text/plain")
    return described


ANSWER: Json = {
    "description": "The answer as UI message chunks; the last chunk is `finish`.",
    "headers": {"X-Generation-Id": GENERATION_NAME, "x-workflow-run-id": RUN},
    "content": EVENT_STREAM,
}
TAIL: Json = {
    "description": "With `startIndex`: the number of the last chunk that exists now.",
    "schema": INTEGER,
}


PATHS: Json = {
    "/ai-sdk/chat": {
        "post": {
            "operationId": "createAiSdkChat",
            "summary": "AI SDK: start a streamed answer in a chat. Any Content-Type may be sent.",
            "parameters": [IDEMPOTENCY_KEY, TIMEOUT_HEADER],
            "requestBody": {"required": True, "content": content(ref("NewAiSdkChat"))},
            "responses": {
                "200": ANSWER,
                **_text_errors(
                    *(code for code in BAD_BODY if code != "unsupported_media_type"), *SHARED
                ),
            },
        }
    },
    "/ai-sdk/chat/{name}/stream": {
        "get": {
            "operationId": "readAiSdkChat",
            "summary": "AI SDK: a chat's running answer from its start, or a run from any chunk.",
            "parameters": [NAME, START_INDEX],
            "responses": {
                "200": ANSWER
                | {"headers": {**ANSWER["headers"], "x-workflow-stream-tail-index": TAIL}},
                "204": answer("No generation runs in this chat."),
                **_text_errors(
                    "cursor_invalid",
                    "not_found",
                    "stream_reset",
                    "expired",
                    "too_many_connections",
                    "draining",
                    *SHARED,
                ),
            },
        }
    },
    "/ai-sdk/chat/{name}/stop": {
        "post": {
            "operationId": "stopAiSdkChat",
            "summary": "AI SDK: cancel all running generations of a chat.",
            "parameters": [NAME],
            "responses": {
                "204": answer("No generation runs in this chat now."),
                **_text_errors("not_found", *SHARED),
            },
        }
    },
    "/ai-sdk/ws": {
        "get": socket("openAiSdkSocket", "WebSocket: the AI SDK's WebSocketChatTransport.", "Error")
    },
}
for _status in PATHS["/ai-sdk/ws"]["get"]["responses"].values():
    if "content" in _status:
        _status["content"] = content(STRING, "text/plain")
