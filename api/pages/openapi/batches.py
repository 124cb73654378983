"""The batches' part of the OpenAPI document: data, written by hand.

Source: docs/batches.md.
"""

from __future__ import annotations

from api.intake.batch_members import (
    FILE_EXPIRES_S_MAX,
    FILE_EXPIRES_S_MIN,
    FILE_ID_CHARACTERS_MAX,
    WINDOW,
)
from api.pages.openapi.dialects import IDEMPOTENCY_KEY
from api.pages.openapi.schedules import WEBHOOK, WHEN
from api.pages.openapi.schemas import (
    CURSOR_HEADER,
    CURSOR_QUERY,
    INTEGER,
    LOCATION,
    OBJECT,
    OWNER_QUERY,
    SHARED,
    STREAMS,
    STRING,
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
from api.resources.batches import LIMIT_MAX
from shared.batches.record import ENDPOINTS, FINAL, TIMES

STATUSES = ("validating", "in_progress", "finalizing", "cancelling", *FINAL)
ID = parameter(
    "id", "path", "The batch.", {"type": "string", "pattern": "^batch_[A-Za-z0-9_-]{2,58}$"}
)
LIMIT = parameter(
    "limit", "query", "Items of a page; default 20.",
    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
)  # fmt: skip
BAD_BODY = (
    "invalid_json", "idempotency_key_invalid", "not_found", "request_timeout", "body_too_large",
    "unsupported_media_type", "invalid_request", "idempotency_mismatch", "draining",
)  # fmt: skip


def page_of(schema: str) -> Json:
    """Return the schema of a page of a listing, in the shape of OpenAI's API."""
    return record(
        {
            "object": {"const": "list"},
            "data": array(ref(schema)),
            "first_id": nullable(STRING),
            "last_id": nullable(STRING),
            "has_more": {"type": "boolean"},
        }
    )


SCHEMAS: Json = {
    "NewBatch": record(
        {
            "input_file_id": {
                "type": "string", "minLength": 1, "maxLength": FILE_ID_CHARACTERS_MAX,
            },
            "endpoint": {"enum": list(ENDPOINTS)},
        },
        {
            **WHEN,
            "webhook": WEBHOOK,
            "completion_window": {
                "type": ["string", "null"],
                "pattern": f"^{WINDOW.pattern}$",
                "description": "Default 24h; at most 7d.",
            },
            "metadata": {"type": ["object", "null"], "additionalProperties": STRING},
            "output_expires_after": nullable(
                record(
                    {
                        "anchor": {"const": "created_at"},
                        "seconds": {
                            "type": "integer",
                            "minimum": FILE_EXPIRES_S_MIN,
                            "maximum": FILE_EXPIRES_S_MAX,
                        },
                    }
                )
            ),
        },
    ),
    "Batch": record(
        {
            "id": STRING,
            "object": {"const": "batch"},
            "endpoint": STRING,
            "input_file_id": STRING,
            "completion_window": STRING,
            "status": {"enum": list(STATUSES)},
            "created_at": INTEGER,
            "expires_at": INTEGER,
            "request_counts": record(
                {"total": INTEGER, "completed": INTEGER, "failed": INTEGER}
            ),
            "usage": OBJECT,
            "metadata": OBJECT,
            "events_url": STRING,
        },
        {
            "owner": STRING,
            **{f"{name}_at": nullable(INTEGER) for name in TIMES},
            "output_file_id": nullable(STRING),
            "error_file_id": nullable(STRING),
            "model": nullable(STRING),
            "errors": nullable(record({"object": {"const": "list"}, "data": array(OBJECT)})),
        },
    ),
    "Batches": page_of("Batch"),
    "DeadLetter": record(
        {"id": STRING, "line": INTEGER, "custom_id": STRING, "code": STRING}
    ),
    "DeadLetters": page_of("DeadLetter"),
}  # fmt: skip


def batch_operation(summary: str, name: str, *codes: str) -> Json:
    """Return an operation that answers with one batch."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [ID],
        "responses": {
            "200": answer("The batch.", ref("Batch")),
            **errors("not_found", *codes, *SHARED, schema="OpenAiError"),
        },
    }


PATHS: Json = {
    "/v1/batches": {
        "post": {
            "operationId": "createBatch",
            "summary": "Run each line of a file as a prompt at batch priority.",
            "parameters": [IDEMPOTENCY_KEY],
            "requestBody": {"required": True, "content": content(ref("NewBatch"))},
            "responses": {
                "200": answer(
                    "The batch; for a repeated scheduled request, its schedule.",
                    {"anyOf": [ref("Batch"), ref("Schedule")]},
                ),
                "202": answer("The new schedule.", ref("Schedule"), {"Location": LOCATION}),
                **errors(*BAD_BODY, "too_many_schedules", *SHARED, schema="OpenAiError"),
            },
        },
        "get": {
            "operationId": "listBatches",
            "summary": "The owner's batches, newest first.",
            "parameters": [
                LIMIT,
                parameter("after", "query", "`last_id` of the previous page.", STRING),
                OWNER_QUERY,
            ],
            "responses": {
                "200": answer("A page.", ref("Batches")),
                **errors("not_found", "invalid_request", *SHARED, schema="OpenAiError"),
            },
        },
    },
    "/v1/batches/{id}": {"get": batch_operation("A batch with its present counts.", "getBatch")},
    "/v1/batches/{id}/cancel": {
        "post": batch_operation("Cancel a batch; finished lines are kept.", "cancelBatch"),
    },
    "/v1/batches/{id}/redrive": {
        "post": {
            **batch_operation(
                "Create a batch of the lines that failed in this one.", "redriveBatch",
                "idempotency_key_invalid", "invalid_request", "idempotency_mismatch", "draining",
                "owner_files_full", "storage_full",
            ),
            "parameters": [ID, IDEMPOTENCY_KEY],
        },
    },
    "/v1/batches/{id}/dead_letters": {
        "get": {
            "operationId": "listDeadLetters",
            "summary": "The lines that failed for good.",
            "parameters": [
                ID,
                LIMIT,
                parameter(
                    "after", "query", "`last_id` of the previous page.",
                    {"type": "string", "pattern": "^[0-9]{1,9}$"},
                ),
            ],
            "responses": {
                "200": answer("A page.", ref("DeadLetters")),
                **errors("not_found", "invalid_request", *SHARED, schema="OpenAiError"),
            },
        },
    },
    "/v1/batches/{id}/events": {
        "get": {
            "operationId": "readBatchEvents",
            "summary": "The batch's events: progress, each finished line, the end.",
            "parameters": [
                ID,
                CURSOR_HEADER,
                CURSOR_QUERY,
                parameter(
                    "wait", "query", "Long poll: seconds to wait for an event after the cursor.",
                    {"type": "number", "minimum": 0, "maximum": 60},
                ),
            ],
            "responses": {
                "200": {
                    "description": "The events; a `reset` `0-0` if the cursor is not in the log.",
                    "content": {**STREAMS, **content(ref("Poll"))},
                },
                "204": answer("The batch has ended, and the cursor is its last event."),
                **errors(
                    "cursor_invalid", "wait_invalid", "not_found", "not_acceptable", "expired",
                    "too_many_connections", "draining", *SHARED, schema="OpenAiError",
                ),
            },
        },
    },
}  # fmt: skip
