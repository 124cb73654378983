"""The part of the OpenAPI document about producers. Data only. Source: docs/producers.md."""

from __future__ import annotations

from api.intake.outside_events import EVENTS_MAX, NAME_CHARACTERS_MAX, READERS, SEQ_MAX
from api.pages.openapi.schemas import (
    ID,
    INTEGER,
    SHARED,
    STATUS,
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

NUMBER: Json = {"type": "number"}
NAME: Json = {"type": "string", "maxLength": NAME_CHARACTERS_MAX}
TOKEN: Json = {
    **parameter(
        "X-Producer-Token",
        "header",
        "`producer_token` of the answer that began.",
        {"type": "string", "pattern": "^[0-9]{1,16}\\.[0-9a-zA-Z]{1,64}$"},
    ),
    "required": True,
}
EVENT: Json = record(
    {"type": {"enum": list(READERS)}},
    {
        "text": STRING,
        "agent": NAME,
        "stage": NAME,
        "current": INTEGER,
        "total": INTEGER,
        "percentage": NUMBER,
        "name": NAME,
        "value": {},
        "status": STRING,
        "finish_reason": STRING,
        "error": {"type": "object"},
    },
)
SEQ: Json = {"type": "integer", "minimum": 1, "maximum": SEQ_MAX}
APPEND: Json = record(
    {}, {"seq": nullable(SEQ), "events": nullable({**array(EVENT), "maxItems": EVENTS_MAX})}
)
APPENDED: Json = record(
    {"id": STRING, "status": STATUS, "last_event_id": STRING, "next_seq": INTEGER}
)
TENURE_MEMBERS: Json = {
    "id": STRING,
    "status": {"const": "running"},
    "producer_token": STRING,
    "attempt": INTEGER,
    "next_seq": INTEGER,
    "lease_s": NUMBER,
    "events_url": STRING,
}
PRODUCED: Json = record(
    {**TENURE_MEMBERS, "model": STRING, "session": nullable(STRING), "created_at": INTEGER}
)
APPEND_EVENTS: Json = {
    "operationId": "appendEvents",
    "summary": "Append events as the producer of a generation, and extend its lease. A repeat with "
    "the same `seq` writes nothing twice. Without events only the lease is extended.",
    "parameters": [ID, TOKEN],
    "requestBody": {"required": True, "content": content(APPEND)},
    "responses": {
        "200": answer("The events are in the log.", APPENDED),
        **errors(
            "invalid_json", "not_found", "request_timeout", "generation_ended", "not_produced",
            "producer_fenced", "sequence_gap", "sequence_conflict", "answer_full",
            "body_too_large", "unsupported_media_type", "invalid_request", "bodies_full", *SHARED,
        ),
    },
}  # fmt: skip
PATHS: Json = {
    "/v1/generations/{id}/producer": {
        "post": {
            "operationId": "takeOverProducer",
            "summary": "Take over from the producer of a generation, which is fenced.",
            "parameters": [ID],
            "requestBody": {
                "required": False,
                "content": content(record({}, {"reset": nullable({"type": "boolean"})})),
            },
            "responses": {
                "200": answer("The new attempt and its token.", record(TENURE_MEMBERS)),
                **errors(
                    "invalid_json", "not_found", "request_timeout", "generation_ended",
                    "not_produced", "body_too_large", "unsupported_media_type",
                    "invalid_request", "bodies_full", *SHARED,
                ),
            },
        }
    }
}  # fmt: skip
