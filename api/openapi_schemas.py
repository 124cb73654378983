"""The vocabulary of the OpenAPI document: schemas, parameters and answers that its paths share.

Data and small builders; knows no route. tests/unit/api holds the document to what the routes do.
"""

from __future__ import annotations

from typing import Any

from api.body import (
    GRACE_S_MAX,
    PRIORITIES,
    RESERVED_PARAMS,
    ROLES,
    SESSION_CHARACTERS_MAX,
)
from api.errors import CODES
from shared.ids import CURSOR, GENERATION_ID

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
OBJECT: Json = {"type": "object"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


def record(required: Json, optional: Json | None = None) -> Json:
    """An object; all of `required` must be there."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def content(schema: Json, media_type: str = "application/json") -> Json:
    return {media_type: {"schema": schema}}


def answer(description: str, schema: Json | None = None, headers: Json | None = None) -> Json:
    found: Json = {"description": description}
    if schema is not None:
        found["content"] = content(schema)
    if headers is not None:
        found["headers"] = headers
    return found


def errors(*codes: str) -> Json:
    """The responses of error codes, joined by status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code].status, []).append(code)
    return {
        str(status): {
            "description": "`" + "`, `".join(names) + "`",
            "content": content(ref("Error")),
            **({"headers": {"Retry-After": RETRY_AFTER}} if status == 503 else {}),
        }
        for status, names in by_status.items()
    }


def parameter(name: str, where: str, description: str, schema: Json) -> Json:
    found = {"name": name, "in": where, "description": description, "schema": schema}
    return {**found, "required": True} if where == "path" else found


EVENT_ID: Json = {"type": "string", "pattern": f"^{CURSOR.pattern}$", "examples": ["1-42"]}
RETRY_AFTER: Json = {"description": "Seconds.", "schema": INTEGER}
LOCATION: Json = {"description": "Path of the generation.", "schema": STRING}
GENERATION: Json = {"type": "string", "pattern": f"^{GENERATION_ID.pattern}$"}
ID = parameter("id", "path", "The generation.", GENERATION)
BEFORE = parameter("before", "query", "`next_before` of the page before.", INTEGER)
CURSOR_HEADER = parameter("Last-Event-ID", "header", "Read on after this event.", EVENT_ID)
CURSOR_QUERY = parameter(
    "last_event_id", "query", "The same where headers cannot be set.", EVENT_ID
)
ACCEPT = parameter("Accept", "header", "Chooses what the answer is in.", STRING)
SHARED = ("unauthorized", "unavailable")

MESSAGE = record(
    {"role": {"enum": list(ROLES)}}, {"content": {"type": ["string", "array", "null"]}}
)
USAGE = record({"prompt_tokens": INTEGER, "completion_tokens": INTEGER, "total_tokens": INTEGER})
FAILURE = record({"code": STRING, "message": STRING, "retryable": {"type": "boolean"}})
STATUS: Json = {"enum": ["queued", "running", "completed", "cancelled", "failed"]}
SUMMARY: Json = {
    "id": STRING,
    "status": STATUS,
    "model": STRING,
    "session": nullable(STRING),
    "priority": {"enum": list(PRIORITIES)},
    "created_at": INTEGER,
    "ended_at": nullable(INTEGER),
    "attempt": INTEGER,
    "finish_reason": nullable(STRING),
    "error": nullable(ref("Failure")),
    "metadata": OBJECT,
    "events_url": STRING,
}
PROMPT: Json = {"type": "string", "minLength": 1}
MESSAGES: Json = {"type": "array", "minItems": 1, "items": ref("Message")}
OPTIONS: Json = {
    "model": {"type": "string", "description": "Default: the first of the models file."},
    "params": {
        "type": "object",
        "description": "Passed on to the backend: max_tokens, temperature, stop, …",
        "propertyNames": {"not": {"enum": list(RESERVED_PARAMS)}},
    },
    "session": {"type": "string", "maxLength": SESSION_CHARACTERS_MAX},
    "metadata": {"type": "object", "description": "At most 16 KiB."},
    "priority": {"enum": list(PRIORITIES)},
    "on_disconnect": {
        "description": "What happens when the last reader has gone; a number: seconds of grace.",
        "anyOf": [
            {"enum": ["continue", "cancel"]},
            {"type": "number", "minimum": 0, "maximum": GRACE_S_MAX},
        ],
    },
}

SCHEMAS: Json = {
    "Error": record({"error": ref("Failure")}),
    "Failure": FAILURE,
    "Usage": USAGE,
    "Message": MESSAGE,
    "NewGeneration": {
        "oneOf": [
            record({"prompt": PROMPT}, OPTIONS),
            record({"messages": MESSAGES}, OPTIONS),
        ]
    },
    "Accepted": record(
        {
            "id": STRING,
            "status": STATUS,
            "model": STRING,
            "session": nullable(STRING),
            "created_at": INTEGER,
            "events_url": STRING,
        }
    ),
    "Summary": record(SUMMARY),
    "ListedGeneration": record({**SUMMARY, "prompt": STRING}),
    "Generation": record(
        {
            **SUMMARY,
            "text": STRING,
            "reasoning": STRING,
            "tool_calls": array(OBJECT),
            "usage": nullable(ref("Usage")),
            "last_event_id": EVENT_ID,
            "messages": array(ref("Message")),
        }
    ),
    "Generations": record(
        {
            "generations": array(ref("ListedGeneration")),
            "active": array(STRING),
            "next_before": nullable(INTEGER),
        },
        {"session": STRING},
    ),
    "Event": record(
        {"id": EVENT_ID, "type": {"type": "string", "description": "Ignore what you do not know."}}
    ),
    "Poll": record(
        {"events": array(ref("Event")), "last_event_id": EVENT_ID, "done": {"type": "boolean"}}
    ),
    "Models": record(
        {
            "object": {"const": "list"},
            "data": array(
                record({"id": STRING, "object": STRING, "created": INTEGER, "owned_by": STRING})
            ),
        }
    ),
    "Workers": record({"workers": array(OBJECT), "queue": OBJECT}),
    "Health": record({"status": STRING}, {"checks": OBJECT}),
}

STREAMS: Json = {
    **content({"type": "string", "description": "Server-sent events."}, "text/event-stream"),
    **content({"type": "string", "description": "One event a line."}, "application/x-ndjson"),
}
