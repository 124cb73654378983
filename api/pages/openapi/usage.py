"""The part of the OpenAPI document about usage. Data only. Source: docs/protocol.md."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    INTEGER,
    SHARED,
    STRING,
    Json,
    content,
    errors,
    parameter,
    record,
)

MAYBE: Json = {"type": ["string", "null"]}
DAY: Json = {"type": "string", "pattern": "^(|[0-9]{4}-[0-9]{2}-[0-9]{2})$"}
ROW: Json = record(
    {
        "owner": MAYBE,
        "model": MAYBE,
        "day": MAYBE,
        "prompts": INTEGER,
        "input_tokens": INTEGER,
        "output_tokens": INTEGER,
        "cached_tokens": INTEGER,
        "estimated_tokens": INTEGER,
        "seconds": {"type": "number"},
    }
)
REPORT: Json = record({"data": {"type": "array", "items": ROW}, "next_after": MAYBE})

PATHS: Json = {
    "/v1/usage": {
        "get": {
            "operationId": "getUsage",
            "summary": "What the owner has used; for operators also other owners.",
            "parameters": [
                parameter("from", "query", "The first day, UTC; 30 days up to `to`.", DAY),
                parameter("to", "query", "The last day, UTC; today.", DAY),
                parameter("group_by", "query", "`owner`, `model`, `day`, with commas.", STRING),
                parameter("owner", "query", "For operators: an owner, or `*`.", STRING),
                parameter("after", "query", "`next_after` of the page before.", STRING),
            ],
            "responses": {
                "200": {
                    "description": "The report.",
                    "content": {**content(REPORT), **content(STRING, "text/csv")},
                },
                **errors("not_found", "not_acceptable", "invalid_request", *SHARED),
            },
        }
    },
}
