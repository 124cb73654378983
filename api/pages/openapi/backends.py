"""The part of the OpenAPI document about backends. Data only. Source: docs/protocol.md."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    INTEGER,
    OBJECT,
    SHARED,
    STRING,
    Json,
    answer,
    array,
    errors,
    record,
)

NUMBER: Json = {"type": "number"}
MAYBE_NUMBER: Json = {"type": ["number", "null"]}
MAYBE_OBJECT: Json = {"type": ["object", "null"]}
PERCENTILES: Json = record({"p50": MAYBE_NUMBER, "p99": MAYBE_NUMBER})
STATES: Json = {"enum": ["closed", "suspect", "open", "half_open", "limited"]}
BACKEND: Json = record(
    {
        "name": STRING,
        "state": STATES,
        "since_s": MAYBE_NUMBER,
        "retry_s": NUMBER,
        "reason": {"type": ["string", "null"]},
        "in_flight": INTEGER,
        "slots": MAYBE_OBJECT,
        "rate_limit": MAYBE_OBJECT,
        "first_token_s": PERCENTILES,
        "tokens_per_s": PERCENTILES,
        "calls": INTEGER,
        "failures": OBJECT,
        "statuses": OBJECT,
    }
)

PATHS: Json = {
    "/v1/backends": {
        "get": {
            "operationId": "listBackends",
            "summary": "For operators: the health of the backends.",
            "responses": {
                "200": answer("All backends.", record({"backends": array(BACKEND)})),
                **errors(*SHARED),
            },
        }
    },
}
