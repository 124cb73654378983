"""The part of the OpenAPI document about deletions. Data only. Source: docs/protocol.md."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    INTEGER,
    SHARED,
    STRING,
    Json,
    answer,
    errors,
    parameter,
    record,
)

# Beside the GET of a session, in document.py.
SESSION: Json = {
    "delete": {
        "operationId": "deleteSession",
        "summary": "Delete the owner's generations in a session.",
        "parameters": [
            parameter("session", "path", "The session's name, percent-encoded.", STRING),
            parameter("owner", "query", "For operators: another owner.", STRING),
        ],
        "responses": {
            "200": answer("Deleted.", record({"session": STRING, "deleted": INTEGER})),
            **errors("not_found", "invalid_request", *SHARED),
        },
    }
}
AFTER: Json = {
    "type": "string",
    "pattern": "^(|schedules|batches|generations|files|shares|walk-[0-9]{1,30})$",
}
USAGE: Json = {"enum": ["", "delete", "keep"]}
STEP: Json = record(
    {
        "owner": STRING,
        "deleted": {"type": "object", "additionalProperties": INTEGER},
        "next": {"type": ["string", "null"]},
    }
)
PATHS: Json = {
    "/v1/owners/{owner}": {
        "delete": {
            "operationId": "forgetOwner",
            "summary": "For operators: do one step of deleting everything of an owner.",
            "parameters": [
                parameter("owner", "path", "The owner's name, percent-encoded.", STRING),
                parameter("after", "query", "`next` of the step before; absent: begin.", AFTER),
                parameter("usage", "query", "`keep`: leave the sums of usage.", USAGE),
            ],
            "responses": {
                "200": answer("What this step has deleted, and the next step.", STEP),
                **errors("not_found", "invalid_request", *SHARED),
            },
        }
    },
}
