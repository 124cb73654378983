"""The part of the OpenAPI document about schedules and webhooks: data, written by hand.

It also has the body of POST /v1/generations, which can ask for both.
Source: docs/schedules.md, docs/webhooks.md.
"""

from __future__ import annotations

from api.intake.schedule_members import (
    CRON_CHARACTERS_MAX,
    CRON_NAMES,
    RUN_AT_S_MAX,
    ZONE_CHARACTERS_MAX,
)
from api.intake.webhook_members import SECRET_BYTES_MAX, SECRET_BYTES_MIN, URL_CHARACTERS_MAX
from api.pages.openapi.audio import AUDIO
from api.pages.openapi.schemas import (
    BEFORE,
    INTEGER,
    MESSAGES,
    NULL,
    OPTIONS,
    OWNER_QUERY,
    PRODUCED_MODEL,
    PRODUCER,
    PROMPT,
    SHARED,
    STRING,
    Json,
    answer,
    array,
    errors,
    nullable,
    parameter,
    record,
    ref,
)

SCHEDULE_ID = "^sched_[A-Za-z0-9_-]{2,58}$"
ID = parameter("id", "path", "The schedule.", {"type": "string", "pattern": SCHEDULE_ID})
AFTER = parameter("after", "query", "With `owner=*`: `next_after` of the previous page.", STRING)

# The node also accepts a public IP address as the host.
URL: Json = {
    "type": "string",
    "maxLength": URL_CHARACTERS_MAX,
    "pattern": r"^https?://([A-Za-z0-9-]+\.)+[A-Za-z][A-Za-z0-9-]*(:[1-9][0-9]{0,3})?([/?][!-\[\]-~]*)?$",
}
SECRET: Json = {
    "anyOf": [
        {"type": "string", "pattern": "^whsec_([A-Za-z0-9+/]{4}){6,42}$"},
        {
            "type": "string",
            "pattern": f"^[!-~]{{{SECRET_BYTES_MIN},{SECRET_BYTES_MAX}}}$",
            "not": {"pattern": "^whsec_"},
        },
    ]
}
WEBHOOK: Json = {
    "description": "The URL that is called at the end, and the secret that signs the call.",
    "anyOf": [record({"url": URL, "secret": SECRET}), {"type": "null"}],
}
# Members of the POST bodies that can be scheduled; `null` means the same as absent.
WHEN: Json = {
    "run_at": {
        "description": "Run once at this time: Unix seconds, or RFC 3339 with an offset.",
        "anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": RUN_AT_S_MAX},
            {
                "type": "string",
                "pattern": "^20[2-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
                "T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](Z|[+-](0[0-9]|1[0-3]):[0-5][0-9])$",
            },
            {"type": "null"},
        ],
    },
    "cron": {
        "description": "Run repeatedly: a cron expression of five fields, or a name such as "
        "`@daily`. Excludes `run_at`.",
        "type": ["string", "null"],
        "pattern": f"^([!-~]+( [!-~]+){{4}}|{'|'.join(CRON_NAMES)})$",
        "maxLength": CRON_CHARACTERS_MAX,
    },
    "timezone": {
        "description": "The time zone of `cron`; default UTC.",
        "type": ["string", "null"],
        "pattern": "^[A-Za-z][A-Za-z0-9_+/-]*$",
        "maxLength": ZONE_CHARACTERS_MAX,
    },
}

NOT_PRODUCED: Json = {"enum": [False, None]}
NATIVE: Json = {**OPTIONS, **WHEN, "webhook": WEBHOOK, "producer": NOT_PRODUCED, "audio": NULL}
# Of a generation whose client sends audio: it cannot start later.
SPOKEN: Json = {
    **OPTIONS, **dict.fromkeys(WHEN, NULL), "webhook": WEBHOOK, "producer": NOT_PRODUCED,
    "model": STRING, "audio": AUDIO,
}  # fmt: skip

# Of a generation that the caller writes: no model server is asked, and it waits for no worker.
PRODUCED: Json = {
    **{name: schema for name, schema in OPTIONS.items() if name != "queue_wait_s"},
    "webhook": WEBHOOK,
    "model": PRODUCED_MODEL,
    "audio": NULL,
}


def _spoken(required: Json, optional: Json) -> Json:
    return record({"model": STRING, "audio": AUDIO, **required}, {**SPOKEN, **optional})


SCHEMAS: Json = {
    "NewGeneration": {
        "oneOf": [
            record({"prompt": PROMPT}, {"messages": NULL, **NATIVE}),
            record({"messages": MESSAGES}, {"prompt": NULL, **NATIVE}),
            _spoken({}, {"prompt": NULL, "messages": NULL}),
            _spoken({"prompt": PROMPT}, {"messages": NULL}),
            _spoken({"messages": MESSAGES}, {"prompt": NULL}),
            record({"producer": PRODUCER}, {"prompt": NULL, "messages": NULL, **PRODUCED}),
            record({"producer": PRODUCER, "prompt": PROMPT}, {"messages": NULL, **PRODUCED}),
            record({"producer": PRODUCER, "messages": MESSAGES}, {"prompt": NULL, **PRODUCED}),
        ]
    },
    "Schedule": record(
        {
            "id": {"type": "string", "pattern": SCHEDULE_ID},
            "object": {"const": "schedule"},
            "kind": {"enum": ["generation", "batch"]},
            "run_at": nullable(INTEGER),
            "cron": nullable(STRING),
            "timezone": nullable(STRING),
            "next_run_at": nullable(INTEGER),
            "last_run_at": nullable(INTEGER),
            "last_id": nullable(STRING),
            "last_error": nullable(record({"code": STRING, "message": STRING})),
            "created_at": INTEGER,
        },
        {"owner": STRING},
    ),
    "Schedules": record(
        {"schedules": array(ref("Schedule")), "next_before": nullable(INTEGER)},
        {"next_after": nullable(STRING)},
    ),
}

PATHS: Json = {
    "/v1/schedules": {
        "get": {
            "operationId": "listSchedules",
            "summary": "The owner's schedules, newest first.",
            "parameters": [BEFORE, OWNER_QUERY, AFTER],
            "responses": {
                "200": answer("A page.", ref("Schedules")),
                **errors("cursor_invalid", "not_found", *SHARED),
            },
        }
    },
    "/v1/schedules/{id}": {
        "get": {
            "operationId": "getSchedule",
            "summary": "A schedule, with its last run.",
            "parameters": [ID],
            "responses": {
                "200": answer("The schedule.", ref("Schedule")),
                **errors("not_found", *SHARED),
            },
        },
        "delete": {
            "operationId": "deleteSchedule",
            "summary": "Delete a schedule; generations and batches that it has started go on.",
            "parameters": [ID],
            "responses": {
                "200": answer(
                    "Deleted.",
                    record(
                        {
                            "id": STRING,
                            "object": {"const": "schedule"},
                            "deleted": {"const": True},
                        }
                    ),
                ),
                **errors("not_found", *SHARED),
            },
        },
    },
}
