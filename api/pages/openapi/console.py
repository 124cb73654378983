"""The part of the OpenAPI document about the console. Data only. Source: docs/console.md."""

from __future__ import annotations

from api.pages.openapi.schemas import (
    CURSOR,
    ID,
    INTEGER,
    OBJECT,
    SHARED,
    STRING,
    Json,
    answer,
    content,
    errors,
    parameter,
    record,
)

PAGE: Json = {"type": "string", "pattern": "^(|[1-9][0-9]{0,2})$"}
UNFINISHED: Json = {"enum": ["", "running", "queued"]}
HOOK_IDS: Json = {"type": "string", "pattern": "^[^,]+(,[^,]+){0,99}$"}
STATE: Json = {"enum": ["", "running", "queued", "ended"]}
MAYBE: Json = {"type": ["string", "null"]}
WORKER: Json = parameter("id", "path", "The name of the worker.", STRING)
BATCH: Json = parameter("id", "path", "The id of the batch.", STRING)
ENTRY: Json = record({"id": STRING, "bytes": INTEGER, "event": OBJECT})
REDRIVEN: Json = record({"id": STRING, "redriven_as": STRING})
DONE: Json = record({"id": STRING, "status": STRING})


def _post(name: str, summary: str, what: Json, schema: Json, *codes: str) -> Json:
    """Return the path of an action."""
    responses = {"202": answer("Done, and logged with who did it.", schema), **errors(*codes)}
    post = {"operationId": name, "summary": summary, "parameters": [what], "responses": responses}
    return {"post": post}


def _posts(name: str, summary: str, asked: list[Json], schema: Json, *codes: str) -> Json:
    """Return the path of an action on many things."""
    path = _post(name, summary, {}, schema, *codes)
    path["post"]["parameters"] = asked
    return path


FILTERS: list[Json] = [
    parameter("search", "query", "The beginning of an id.", STRING),
    parameter("owner", "query", "Only this owner.", STRING),
    parameter("model", "query", "Only this model.", STRING),
    parameter("worker", "query", "Only this worker.", STRING),
    parameter("backend", "query", "Only this backend.", STRING),
]
AT_MOST: Json = {"type": "string", "pattern": "^([1-9][0-9]?|1[0-9]{2}|200)$"}
IDS: Json = {"type": "string", "pattern": "^[^,]+(,[^,]+){0,19}$"}

PATHS: Json = {
    "/v1/console": {
        "get": {
            "operationId": "followConsole",
            "summary": "For operators: what runs now, as server-sent events.",
            "parameters": [
                parameter("state", "query", "Default: all unfinished generations.", STATE),
                *FILTERS,
                parameter("page", "query", "Of the table, from 1 on.", PAGE),
            ],
            "responses": {
                "200": {
                    "description": "The picture, and each change of it.",
                    "content": content(STRING, "text/event-stream"),
                },
                **errors("invalid_request", "draining", *SHARED),
            },
        }
    },
    "/v1/console/generations/{id}": {
        "get": {
            "operationId": "getConsoleGeneration",
            "summary": "For operators: a generation of any owner; its prompt only with `content`.",
            "parameters": [ID],
            "responses": {
                "200": answer("The generation.", OBJECT),
                **errors("not_found", *SHARED),
            },
        }
    },
    "/v1/console/generations/{id}/request": {
        "get": {
            "operationId": "getConsoleRequest",
            "summary": "For operators with `content`: the messages and the parameters.",
            "parameters": [ID],
            "responses": {
                "200": answer(
                    "What the backend was asked.",
                    record({"messages": {"type": "array", "items": OBJECT}, "params": OBJECT}),
                ),
                **errors("not_found", *SHARED),
            },
        }
    },
    "/v1/console/generations/cancel": _posts(
        "cancelFiltered", "For operators: cancel the generations that a filter shows.",
        [
            parameter("state", "query", "Default: all unfinished ones.", UNFINISHED),
            *FILTERS,
            {**parameter("at_most", "query", "How many, the oldest first.", AT_MOST),
             "required": True},
        ],
        record({"matched": INTEGER, "cancelled": INTEGER, "left": INTEGER}),
        "invalid_request", *SHARED,
    ),
    "/v1/console/webhooks/redrive": _posts(
        "redriveWebhooks", "For operators: deliver webhooks again that were given up.",
        [
            parameter("ids", "query", "1 to 100 ids of their subjects.", HOOK_IDS),
            parameter("all", "query", "`yes`: the newest 100.", {"enum": ["yes"]}),
        ],
        record({"redriven": INTEGER, "left": INTEGER}),
        "invalid_request", *SHARED,
    ),
    "/v1/console/generations/{id}/log": {
        "get": {
            "operationId": "getConsoleLog",
            "summary": "For operators: a page of the raw log; its texts only with `content`.",
            "parameters": [ID, parameter("after", "query", "`next` of the page before.", CURSOR)],
            "responses": {
                "200": answer(
                    "The entries.",
                    record({"data": {"type": "array", "items": ENTRY}, "next": MAYBE}),
                ),
                **errors("cursor_invalid", "not_found", *SHARED),
            },
        }
    },
    "/v1/console/generations/{id}/cancel": _post(
        "cancelFromConsole", "For operators: cancel a generation of any owner.", ID, DONE,
        "not_found", "expired", *SHARED,
    ),
    "/v1/console/generations/{id}/replay": _post(
        "replayFromConsole", "For operators: start the same request again, as one's own.", ID,
        record({"id": STRING, "replay_of": STRING}),
        "not_found", "model_not_found", "owner_full", "too_many_active", "rate_limited",
        "quota_exhausted", "draining", "queue_full", *SHARED,
    ),
    "/v1/console/workers/{id}/drain": _post(
        "drainWorker", "For operators: tell a worker to drain, as SIGTERM does.", WORKER, DONE,
        "not_found", *SHARED,
    ),
    "/v1/console/batches/redrive": _post(
        "redriveBatches", "For operators: run the failed lines of several batches again.",
        {
            **parameter("ids", "query", "1 to 20 ids of batches, separated by commas.", IDS),
            "required": True,
        },
        record({"data": {"type": "array", "items": OBJECT}}),
        "invalid_request", "draining", *SHARED,
    ),
    "/v1/console/batches/{id}/redrive": _post(
        "redriveFromConsole", "For operators: run the failed lines of a batch again.", BATCH,
        REDRIVEN, "not_found", "invalid_request", "draining", *SHARED,
    ),
}  # fmt: skip
