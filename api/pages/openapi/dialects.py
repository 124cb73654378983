"""The dialects' part of the OpenAPI document: data, written by hand.

A body is described only as far as Tailrace reads it; members that go to the backend are described
by the backend. Source: docs/protocol.md, "Dialects".
"""

from __future__ import annotations

from api.pages.openapi.schemas import (
    GENERATION_NAME,
    INTEGER,
    MESSAGES,
    NULL,
    OBJECT,
    OPTIONS,
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

# Members of a body that every dialect reads as the native interface does.
COMMON = {name: schema for name, schema in OPTIONS.items() if name != "params"}
# A number is a member for the backend: vLLM's scheduler takes it.
OPENAI_COMMON = {**COMMON, "priority": {"anyOf": [COMMON["priority"], {"type": "number"}]}}
IDEMPOTENCY_KEY = parameter(
    "Idempotency-Key",
    "header",
    "A repeated request with the same key and body gets the same answer.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
)
EVENT_STREAM: Json = content(
    {
        "description": "One server-sent event; `data` is a JSON object, and `[DONE]` at last.",
        **record({"data": STRING}, {"event": STRING, "id": STRING, "retry": INTEGER}),
    },
    "text/event-stream",
)
BAD_BODY = (
    "invalid_json", "idempotency_key_invalid", "model_not_found", "request_timeout", "expired",
    "body_too_large", "unsupported_media_type", "invalid_request", "idempotency_mismatch",
    "owner_full", "too_many_active", "too_many_connections", "rate_limited", "quota_exhausted",
    "draining", "queue_full", "bodies_full",
)  # fmt: skip

OPENAI_ERROR = record(
    {
        "error": record(
            {"message": STRING, "type": STRING, "param": nullable(STRING), "code": STRING}
        )
    }
)
FAILED: Json = {
    "description": "The generation failed; `code` is the code of its end.",
    "content": content(ref("OpenAiError")),
}

SCHEMAS: Json = {
    "OpenAiError": OPENAI_ERROR,
    "Model": record({"id": STRING, "object": {"const": "model"}, "created": INTEGER}),
    "NewChatCompletion": record(
        {"messages": MESSAGES},
        {
            **OPENAI_COMMON,
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {
                "type": ["object", "null"],
                "properties": {"include_usage": {"type": ["boolean", "null"]}},
            },
            "n": {"enum": [1, None]},
        },
    )
    | {"description": "Further members go to the backend: max_tokens, temperature, tools, …"},
    "TextError": record({"error": STRING}),
    "NewDeepChat": record(
        {
            "messages": array(
                record(
                    {},
                    {
                        "role": {"type": ["string", "null"]},
                        "text": {"type": ["string", "null"]},
                        "html": {"type": ["string", "null"]},
                        "files": {"type": ["array", "null"], "items": OBJECT},
                    },
                )
            )
            | {"minItems": 1}
        },
        OPTIONS,
    ),
    "DeepChatResponse": record({"text": STRING}, {"files": array(OBJECT)}),
    "ChatCompletion": record(
        {
            "id": {**STRING, "description": "The generation's id."},
            "object": {"const": "chat.completion"},
            "created": INTEGER,
            "model": STRING,
            "choices": array(
                record(
                    {"index": INTEGER, "message": OBJECT, "finish_reason": STRING},
                    {"logprobs": NULL},
                )
            ),
        },
        {"usage": ref("Usage")},
    ),
}


def chat_completions(name: str) -> Json:
    """Return the operation of a POST of chat completions."""
    return {
        "operationId": name,
        "summary": "OpenAI's chat completions: a stream with `stream: true`, else one JSON object.",
        "parameters": [IDEMPOTENCY_KEY, TIMEOUT_HEADER],
        "requestBody": {"required": True, "content": content(ref("NewChatCompletion"))},
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": {"X-Generation-Id": GENERATION_NAME},
                "content": {**content(ref("ChatCompletion")), **EVENT_STREAM},
            },
            **errors(*BAD_BODY, *SHARED, schema="OpenAiError"),
            "409": FAILED | {"description": "The generation was cancelled."},
            "500": FAILED | {"description": "The generation was lost."},
            "502": FAILED,
            "504": FAILED | {"description": "The backend did not answer in time."},
        },
    }


def models(name: str, schema: str) -> Json:
    """Return the operation that lists the models; `schema` is that of the errors."""
    return {
        "operationId": name,
        "summary": "The models, in the shape of OpenAI's API; the first one is the default.",
        "responses": {
            "200": answer("All models.", ref("Models")),
            **errors("unauthorized", schema=schema),
        },
    }


def model(name: str, schema: str) -> Json:
    """Return the operation that shows one model; `schema` is that of the errors."""
    return {
        "operationId": name,
        "summary": "One model.",
        "parameters": [parameter("model", "path", "The model's name.", STRING)],
        "responses": {
            "200": answer("The model.", ref("Model")),
            **errors("model_not_found", "unauthorized", schema=schema),
        },
    }


DEEP_CHAT: Json = {
    "operationId": "createDeepChat",
    "summary": "deep-chat: a stream if Accept names text/event-stream, else one Response.",
    "parameters": [IDEMPOTENCY_KEY, TIMEOUT_HEADER],
    "requestBody": {
        "required": True,
        "content": {
            **content(ref("NewDeepChat")),
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "message1": STRING,
                        "files": {"type": "array", "items": {**STRING, "format": "binary"}},
                        "model": STRING,
                        "params": STRING,
                    },
                }
            },
        },
    },
    "responses": {
        "200": {
            "description": "The answer.",
            "headers": {"X-Generation-Id": GENERATION_NAME},
            "content": {**content(ref("DeepChatResponse")), **EVENT_STREAM},
        },
        **errors(*BAD_BODY, *SHARED, "invalid_multipart", schema="TextError"),
        "502": {
            "description": "The generation failed.",
            "content": content(ref("TextError")),
        },
    },
}


def socket(name: str, summary: str, schema: str, *parameters: Json) -> Json:
    """Return the operation that opens a WebSocket; `schema` is that of the handshake's errors."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": list(parameters),
        "responses": {
            "101": answer("Switching protocols."),
            **errors("upgrade_required", "unauthorized", "forbidden", "invalid_request",
                     "too_many_connections", schema=schema),
            "426": answer("The WebSocket version is not 13."),
        },
    }  # fmt: skip


PATHS: Json = {
    "/deep-chat": {"post": DEEP_CHAT},
    "/deep-chat/ws": {
        "get": socket(
            "openDeepChatSocket",
            "WebSocket: deep-chat's, with a stop key after each answer.",
            "TextError",
            parameter("stop_key", "query", "2 to 256 characters; default `stop-key`.", STRING),
        )
    },
    "/lobe/ws": {
        "get": socket(
            "openLobeSocket",
            "WebSocket: startConversation, resume, cancel, ping; many messages on one socket.",
            "Error",
        )
    },
    "/lobe-gateway/ws": {
        "get": socket(
            "openLobeGateway",
            "WebSocket: LobeHub's agent gateway, version 1, for one operation.",
            "Error",
            parameter("operationId", "query", "A generation, or its Idempotency-Key.", STRING),
        )
    },
    "/lobe-gateway/v2/ws": {
        "get": socket(
            "openLobeGatewayMux",
            "WebSocket: LobeHub's agent gateway, version 2, for many operations of a user.",
            "Error",
            parameter("token", "query", "A key or a token.", STRING),
            parameter("clientId", "query", "Names the client from one socket to the next.", STRING),
        )
    },
    "/api/agent/stream": {
        "get": {
            "operationId": "readLobeOperation",
            "summary": "LobeHub: the events of an operation after a number, on any node.",
            "parameters": [
                parameter("operationId", "query", "A generation, or its Idempotency-Key.", STRING),
                parameter(
                    "lastEventId",
                    "query",
                    "The number of the last event that was seen.",
                    {"type": "string", "pattern": "^[0-9]{0,15}$"},
                ),
                parameter(
                    "last-event-id",
                    "header",
                    "The same; counts before the query.",
                    {"type": "string", "pattern": "^[0-9]{0,15}$"},
                ),
            ],
            "responses": {
                "200": {
                    "description": "The events; the last one is agent_runtime_end.",
                    "headers": {"X-Generation-Id": GENERATION_NAME},
                    "content": EVENT_STREAM,
                },
                **errors(
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
    "/v1/chat/completions": {"post": chat_completions("createChatCompletion")},
    "/chat/completions": {"post": chat_completions("createChatCompletionAlias")},
    "/v1/models": {"get": models("listModels", "Error")},
    "/v1/models/{model}": {"get": model("getModel", "Error")},
    "/models": {"get": models("listModelsAlias", "OpenAiError")},
    "/models/{model}": {"get": model("getModelAlias", "OpenAiError")},
}
