"""The part of the OpenAPI document about timelines. Data only. Source: docs/timeline.md."""

from __future__ import annotations

from typing import get_args

from api.pages.openapi.schemas import (
    ID,
    INTEGER,
    SHARED,
    STRING,
    Json,
    answer,
    array,
    errors,
    record,
    ref,
)
from shared.timeline.moment import What

NUMBER: Json = {"type": "number"}
SCHEMAS: Json = {
    "Moment": record(
        {"at": NUMBER, "what": {"enum": list(get_args(What))}},
        {
            "worker": STRING,
            "node": STRING,
            "request_id": STRING,
            "attempt": INTEGER,
            "lane": STRING,
            "partition": STRING,
            "waited_s": NUMBER,
            "again_s": NUMBER,
            "taken_from": STRING,
            "backend": STRING,
            "ending": STRING,
            "status": STRING,
            "code": STRING,
            "by": STRING,
            "seconds": NUMBER,
            "pieces": INTEGER,
            "joined": INTEGER,
            "left": INTEGER,
            "readers": INTEGER,
        },
    )
}

PATHS: Json = {
    "/v1/generations/{id}/timeline": {
        "get": {
            "operationId": "getTimeline",
            "summary": "What happened to a generation, when, and in which process. No text of it.",
            "parameters": [ID],
            "responses": {
                "200": answer(
                    "The moments, the earliest first.", record({"data": array(ref("Moment"))})
                ),
                **errors("not_found", "expired", *SHARED),
            },
        }
    },
}
