"""The part of the OpenAPI document about shares. Data only. Source: docs/protocol.md, "Shares"."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    ID,
    INTEGER,
    SESSION_PATTERN,
    SHARED,
    STRING,
    Json,
    answer,
    content,
    errors,
    record,
)
from shared.config.credentials import SESSION_CHARACTERS_MAX
from shared.later.shares import TTL_S_MAX

NULL: Json = {"type": "null"}  # the same as absent
TTL_S: Json = {"anyOf": [{"type": "number", "minimum": 1, "maximum": TTL_S_MAX}, NULL]}
SESSION: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": SESSION_CHARACTERS_MAX,
    "pattern": SESSION_PATTERN,
}
NEW_SHARE: Json = {
    "oneOf": [
        record(
            {"generation": {"type": "string", "minLength": 1}}, {"session": NULL, "ttl_s": TTL_S}
        ),
        record({"session": SESSION}, {"generation": NULL, "ttl_s": TTL_S}),
    ]
}

PATHS: Json = {
    "/v1/share": {
        "post": {
            "operationId": "createShare",
            "summary": "Make a token that reads one generation or one session.",
            "requestBody": {"required": True, "content": content(NEW_SHARE)},
            "responses": {
                "201": answer(
                    "The share. Its token is shown only here.",
                    record({"id": STRING, "token": STRING, "expires_at": INTEGER}),
                ),
                **errors(
                    "invalid_json", "not_found", "request_timeout", "body_too_large",
                    "unsupported_media_type", "invalid_request", "too_many_shares", *SHARED,
                ),
            },
        }
    },
    "/v1/share/{id}": {
        "delete": {
            "operationId": "deleteShare",
            "summary": "End a share on every node.",
            "parameters": [ID],
            "responses": {
                "200": answer("Ended.", record({"id": STRING, "deleted": {"const": True}})),
                **errors("not_found", *SHARED),
            },
        }
    },
}  # fmt: skip
