"""Schemas, parameters and responses that the paths of the OpenAPI document share.

Data and small builders; knows no route. Tests compare the document with the routes.
"""

from __future__ import annotations

from typing import Any

from api.dialects.openai_errors import openai_status
from api.errors import CODES
from api.intake.body import (
    GRACE_S_MAX,
    PRIORITIES,
    RESERVED_PARAMS,
    ROLES,
)
from api.intake.producer_members import MODEL_CHARACTERS_MAX
from shared.config.credentials import SESSION_CHARACTERS_MAX
from shared.log.ids import GENERATION_ID
from shared.log.producing import LEASE_S_MAX, LEASE_S_MIN

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
OBJECT: Json = {"type": "object"}
BEFORE_MAX = 10**15 - 1  # api/resources/listings.py reads at most 15 digits


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def array(items: Json) -> Json:
    return {"type": "array", "items": items}


def record(required: Json, optional: Json | None = None) -> Json:
    """Return the schema of an object with required and optional members."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": properties}


def content(schema: Json, media_type: str = "application/json") -> Json:
    return {media_type: {"schema": schema}}


def answer(description: str, schema: Json | None = None, headers: Json | None = None) -> Json:
    """Return a response object; `schema` is that of a JSON body."""
    response: Json = {"description": description}
    if schema is not None:
        response["content"] = content(schema)
    if headers is not None:
        response["headers"] = headers
    return response


def errors(*codes: str, schema: str = "Error") -> Json:
    """Return one response for each status of these error codes; it names its codes."""
    shown_status = openai_status if schema == "OpenAiError" else int
    by_status: dict[int, list[str]] = {}
    for code in codes:
        status = CODES[code].status
        by_status.setdefault(shown_status(status), []).append(code)
    return {
        str(status): {
            "description": "`" + "`, `".join(names) + "`",
            "content": content(ref(schema)),
            **({"headers": HEADERS_OF_ERRORS[status]} if status in HEADERS_OF_ERRORS else {}),
        }
        for status, names in by_status.items()
    }


def parameter(name: str, where: str, description: str, schema: Json) -> Json:
    """Return a parameter object; `where` is path, query or header."""
    described = {"name": name, "in": where, "description": description, "schema": schema}
    return {**described, "required": True} if where == "path" else described


# As shared.log.ids.parse_cursor reads it: the only id with zeros is `0-0`, the start.
_EVENT_ID = "0-0|[1-9][0-9]{0,18}-[1-9][0-9]{0,18}"
EVENT_ID: Json = {"type": "string", "pattern": f"^({_EVENT_ID})$", "examples": ["1-42"]}
CURSOR: Json = {"type": "string", "pattern": f"^(|{_EVENT_ID})$", "examples": ["1-42"]}
HEADERS_OF_ERRORS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"description": "The scheme.", "schema": {"const": "Bearer"}}},
    429: {"Retry-After": {"description": "Seconds.", "schema": INTEGER}},
    503: {"Retry-After": {"description": "Seconds.", "schema": INTEGER}},
}
LOCATION: Json = {"description": "The path of the generation or schedule.", "schema": STRING}
GENERATION: Json = {"type": "string", "pattern": f"^{GENERATION_ID.pattern}$"}
GENERATION_NAME: Json = {
    "description": "The generation's id, if the answer is a stream.",
    "schema": STRING,
}
HEARTBEAT: Json = {
    "description": "Of a stream: seconds after which a silent stream sends a heartbeat.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
ID = parameter("id", "path", "The generation.", GENERATION)
BEFORE = parameter(
    "before",
    "query",
    "`next_before` of the previous page.",
    {"type": "integer", "minimum": 0, "maximum": BEFORE_MAX},
) | {"allowEmptyValue": True}
CURSOR_HEADER = parameter("Last-Event-ID", "header", "Read the events after this one.", CURSOR)
CURSOR_QUERY = parameter(
    "last_event_id", "query", "As Last-Event-ID, for clients that cannot set headers.", CURSOR
)
TIMEOUT_HEADER = parameter(
    "X-Request-Timeout",
    "header",
    "Seconds, above 0; as the member deadline_s. The shorter one holds.",
    {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,12}(\.[0-9]{1,12})?$"},
)
OWNER_QUERY = parameter(
    "owner", "query", "For operators: list this owner's instead; `*`: those of all owners.", STRING
)
SHARED = ("host_invalid", "unauthorized", "forbidden", "unavailable")

PARTS: Json = {"type": "array", "minItems": 1, "items": record({"type": STRING})}
MESSAGE: Json = {
    "description": "Further members are passed on to the backend.",
    "anyOf": [
        record({"role": {"enum": list(ROLES)}, "content": {"anyOf": [STRING, PARTS]}}),
        record(
            {"role": {"const": "assistant"}, "tool_calls": {"type": "array", "minItems": 1}},
            {"content": {"anyOf": [STRING, array(record({"type": STRING})), {"type": "null"}]}},
        ),
    ],
}
USAGE = record({"prompt_tokens": INTEGER, "completion_tokens": INTEGER, "total_tokens": INTEGER})
ERROR_MEMBERS: Json = {"code": STRING, "message": STRING, "retryable": {"type": "boolean"}}
REFUSAL = {
    "description": "The model server's own error about this request, in OpenAI's members.",
    **record(
        {"message": STRING},
        {
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": STRING,
            "type": STRING,
            "param": STRING,
        },
    ),
}
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
PROGRESS: Json = {"worker": nullable(STRING), "attempts": INTEGER, "waited_s": {"type": "number"}}
PROMPT: Json = {"type": "string", "minLength": 1}
MESSAGES: Json = {"type": "array", "minItems": 1, "items": ref("Message")}
NULL: Json = {"type": "null"}
# `null` means the same as absent.
SESSION_PATTERN = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"  # no control characters
OPTIONS: Json = {
    "model": {"type": ["string", "null"], "description": "Default: the first of the models file."},
    "params": {
        "type": ["object", "null"],
        "description": "Passed on to the backend: max_tokens, temperature, stop, …",
        "propertyNames": {"not": {"enum": list(RESERVED_PARAMS)}},
        "properties": {"n": {"const": 1}},
    },
    "session": {
        "type": ["string", "null"],
        "maxLength": SESSION_CHARACTERS_MAX,
        "pattern": SESSION_PATTERN,
    },
    "metadata": {"type": ["object", "null"], "description": "At most 16 KiB."},
    "priority": {"enum": [*PRIORITIES, None]},
    "on_disconnect": {
        "description": "After the last reader has left; a number: cancel after these seconds.",
        "anyOf": [
            {"enum": ["continue", "cancel", None]},
            {"type": "number", "minimum": 0, "maximum": GRACE_S_MAX},
        ],
    },
    "queue_wait_s": {
        "description": "The longest wait for a worker; then the end has the code queue_timeout.",
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
    },
    "deadline_s": {
        "description": "From now to the end, which then has the code deadline_exceeded.",
        "type": ["number", "null"],
        "exclusiveMinimum": 0,
    },
}

PRODUCER: Json = {
    "description": "No worker takes the generation: the caller writes its events.",
    "anyOf": [
        {"const": True},
        {
            "type": "object",
            "properties": {
                "lease_s": {"type": "number", "minimum": LEASE_S_MIN, "maximum": LEASE_S_MAX}
            },
        },
    ],
}
PRODUCED_MODEL: Json = {
    "description": "Any name.",
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": MODEL_CHARACTERS_MAX,
    "pattern": SESSION_PATTERN,
}

SCHEMAS: Json = {
    "Error": record({"error": record(ERROR_MEMBERS)}),
    "Failure": record(ERROR_MEMBERS, {"upstream": ref("Refusal")}),
    "Refusal": REFUSAL,
    "Usage": USAGE,
    "Message": MESSAGE,
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
    "ListedGeneration": record({**SUMMARY, **PROGRESS, "prompt": STRING}),
    "Generation": record(
        {
            **SUMMARY,
            **PROGRESS,
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
        {"id": EVENT_ID, "type": {"type": "string", "description": "Ignore unknown types."}}
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
    "Workers": record(
        {"workers": array(OBJECT), "queue": OBJECT, "oldest_s": OBJECT, "jobs": OBJECT}
    ),
    "Health": record(
        {"status": STRING}, {"checks": OBJECT, "problems": array(STRING), "jobs": OBJECT}
    ),
}

# For a sequential media type, an OpenAPI 3.1 schema describes one event.
SERVER_SENT_EVENT: Json = {
    "description": "One server-sent event; `data` is the event as JSON, without `id` and `type`.",
    **record(
        {"id": EVENT_ID, "event": STRING, "data": STRING}, {"retry": {**INTEGER, "minimum": 0}}
    ),
}
STREAMS: Json = {
    **content(SERVER_SENT_EVENT, "text/event-stream"),
    **content({"type": "string", "description": "One event per line."}, "application/x-ndjson"),
}
