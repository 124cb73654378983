"""The part of the OpenAPI document about LobeHub's gateway: its sockets, and how it is fed.

Data only. Source: docs/dialects/lobehub-gateway.md.
"""

from __future__ import annotations

from api.pages.openapi.schemas import (
    OBJECT,
    SHARED,
    STRING,
    Json,
    answer,
    array,
    content,
    errors,
    nullable,
    parameter,
    record,
)

EVENTS_MAX, NAME_CHARACTERS_MAX, WAIT_MS_MAX = 1_000, 255, 600_000
STATUSES = (
    "running", "waiting_input", "waiting_confirmation", "completed", "interrupted", "error",
)  # fmt: skip
OPERATION: Json = {"type": "string", "pattern": "^(?!gen_)[!-~]{1,255}$"}
NAME: Json = {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX}
TEXT: Json = {"type": "string", "minLength": 1}
TIMEOUT: Json = {"type": "number", "maximum": WAIT_MS_MAX}
EVENT: Json = record({"type": STRING}, {"operationId": {}, "data": {}})
BOOLEAN: Json = {"type": "boolean"}
SUCCESS: Json = record({"success": {"const": True}, "generationId": STRING})
REPEAT = parameter(
    "Idempotency-Key",
    "header",
    "A repeat with the same key writes nothing.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
)
BAD = (
    "invalid_json", "idempotency_key_invalid", "not_found", "request_timeout", "body_too_large",
    "unsupported_media_type", "invalid_request", "bodies_full",
)  # fmt: skip
WRITING = (*BAD, "generation_ended", "not_produced", "producer_fenced", "answer_full")
WAITING = (*WRITING, "rate_limited", "expired", "draining")
BEGINNING = (
    *BAD, "idempotency_mismatch", "generation_ended", "producer_fenced", "not_produced",
    "owner_full", "too_many_active", "rate_limited", "quota_exhausted", "draining", "queue_full",
)  # fmt: skip


def operation(name: str, summary: str, body: Json, codes: tuple[str, ...], ok: Json) -> Json:
    """Return a POST of a feeder; the one that begins an operation takes no key."""
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": [] if codes is BEGINNING else [REPEAT],
            "requestBody": {"required": True, "content": content(body)},
            "responses": {"200": answer("Done.", ok), **errors(*codes, *SHARED)},
        }
    }


def timed(described: Json, body: Json) -> Json:
    """Return a POST that waits for a client, and its answer when none came in time."""
    described["post"]["responses"]["504"] = answer("No client has replied in time.", body)
    return described


TOLD: Json = record({"clientConnected": BOOLEAN, "status": STRING})
TIMED_OUT: Json = {"error": {"const": "TIMEOUT"}}
PREFIX = "/lobe-gateway/api/operations"
PATHS: Json = {
    "/lobe-gateway/health": {
        "get": {
            "operationId": "getLobeGatewayHealth",
            "summary": "LobeHub: whether the gateway is there.",
            "security": [],
            "responses": {"200": {"description": "OK.", "content": content(STRING, "text/plain")}},
        }
    },
    f"{PREFIX}/init": operation(
        "beginLobeOperation",
        "LobeHub's server begins an operation; a repeat finds it.",
        record({"operationId": OPERATION, "userId": TEXT}, {"meta": nullable(OBJECT)}),
        BEGINNING,
        SUCCESS,
    ),
    f"{PREFIX}/push-event": operation(
        "pushLobeEvent",
        "LobeHub's server writes an event. Instead of `event` it may send `events`.",
        record({"operationId": OPERATION, "event": EVENT}),
        WRITING,
        SUCCESS,
    ),
    f"{PREFIX}/push-events": operation(
        "pushLobeEvents",
        "LobeHub's server writes events, all or none.",
        record(
            {
                "operationId": OPERATION,
                "events": {**array(EVENT), "minItems": 1, "maxItems": EVENTS_MAX},
            }
        ),
        WRITING,
        SUCCESS,
    ),
    f"{PREFIX}/update-status": operation(
        "updateLobeOperation",
        "LobeHub's server says the status of an operation; a last status ends it.",
        record(
            {"operationId": OPERATION, "status": {"enum": list(STATUSES)}},
            {"summary": nullable(STRING)},
        ),
        WRITING,
        SUCCESS,
    ),
    f"{PREFIX}/tool-execute": timed(
        operation(
            "executeLobeTool",
            "A client runs a tool. With `timeout` (ms) the answer has the result.",
            record(
                {"operationId": OPERATION, "data": record({"toolCallId": NAME})},
                {"timeout": nullable(TIMEOUT)},
            ),
            WAITING,
            record({"success": {"const": True}, "generationId": STRING}, {"result": OBJECT}),
        ),
        record({"success": {"const": False}, **TIMED_OUT}),
    ),
    f"{PREFIX}/request-confirmation": timed(
        operation(
            "requestLobeConfirmation",
            "Ask a client whether a tool may run; wait for the reply at most `timeout` ms.",
            record(
                {"operationId": OPERATION, "toolCallId": NAME, "tool": OBJECT},
                {"timeout": nullable(TIMEOUT)},
            ),
            WAITING,
            record({"approved": BOOLEAN}),
        ),
        record({"approved": {"const": False}, **TIMED_OUT}),
    ),
    f"{PREFIX}/request-input": timed(
        operation(
            "requestLobeInput",
            "Ask a client for a text; wait for the reply at most `timeout` ms.",
            record({"operationId": OPERATION, "prompt": TEXT}, {"timeout": nullable(TIMEOUT)}),
            WAITING,
            record({"content": STRING}),
        ),
        record({"content": {"const": ""}, **TIMED_OUT}),
    ),
    f"{PREFIX}/status": {
        "get": {
            "operationId": "getLobeOperation",
            "summary": "LobeHub's server asks for the status of an operation.",
            "parameters": [
                {**parameter("operationId", "query", "The operation.", OPERATION), "required": True}
            ],
            "responses": {
                "200": answer("The status.", TOLD),
                **errors("invalid_request", *SHARED),
            },
        }
    },
}  # fmt: skip
