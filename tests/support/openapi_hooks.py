"""What schemathesis cannot read from the OpenAPI document, put into its requests.

Loaded by schemathesis itself, in a process of its own (tests/conformance/test_openapi.py).

* `Accept`: OpenAPI leaves it to the content types of the answers, and schemathesis sends none. Here
  each request gets one, chosen by what it asks, so that a run repeats itself.
* `Idempotency-Key`: two bodies under one key are refused, as they should be, which would look like
  a valid request that was turned down. A key that is valid is made one of its path and body.
* A valid cursor: a read of an unknown generation with a cursor waits `CURSOR_WAIT_S`, because the
  node may be behind. One read in `CURSOR_KEPT` keeps the cursor, so that a run waits rarely.
* `run_at`, `cron`, `timezone`: what looks like a cron or a zone gets to be one, and of two that
  exclude each other one is left. There is no stream of what is scheduled, so none is asked for;
  the same holds for `producer`.
* Operations of LobeHub: a POST for an unknown one waits for it, so most name one that was begun. No
  client replies, so none waits for a reply for more than a millisecond.
* Time limits: an answer that has a valid limit of a millisecond ends with an error of its own. Such
  a limit becomes an hour.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import schemathesis

from api.pages.openapi.schedules import WHEN as WHEN_SCHEMAS

ACCEPTS = (None, "application/json", "text/event-stream", "application/x-ndjson", "*/*")
WHEN = ("run_at", "cron", "timezone")
TIME_LIMITS = ("queue_wait_s", "deadline_s")
LIMIT_S = 3_600
CURSOR_KEPT = 8
CURSORS = {"last_event_id": r"\d+-\d+", "starting_after": r"\d+", "Last-Event-ID": r"\d+-\d+"}
VALID_KEY = re.compile(r"[!-~]{1,255}")
OPERATIONS = "/lobe-gateway/api/operations/"
VALID_OPERATION = re.compile(r"(?!gen_)[!-~]{1,255}")
UNKNOWN_KEPT = 8
begun: list[str] = []  # operations of LobeHub


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    asked = (case.operation.label, case.path_parameters, case.query, case.body)
    said = zlib.crc32(repr(asked).encode())
    headers = case.headers if case.headers is not None else {}
    lengthen(case.body)
    if OPERATIONS in case.operation.label and isinstance(case.body, dict):
        name_begun(case.operation.label, case.body, said)
    accept = ACCEPTS[said % len(ACCEPTS)]
    if is_scheduled(case.body) or is_produced(case.body):
        accept = "application/json"
    if accept is not None and "Accept" not in headers:
        headers["Accept"] = accept
    if VALID_KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = f"key-{said}"
    if said % CURSOR_KEPT:
        for found in (headers, case.query or {}):
            for name, form in CURSORS.items():
                if re.fullmatch(form, str(found.get(name, ""))):
                    del found[name]


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    if case.operation.label.endswith(f"{OPERATIONS}init") and response.status_code == 200:
        begun.append(case.body["operationId"])


def name_begun(label: str, body: dict[str, Any], said: int) -> None:
    """Name an operation that was begun, and wait for no reply."""
    operation = body.get("operationId")
    is_valid = isinstance(operation, str) and VALID_OPERATION.fullmatch(operation)
    if begun and is_valid and said % UNKNOWN_KEPT and not label.endswith("init"):
        body["operationId"] = begun[-1]
    timeout = body.get("timeout", 1)
    if timeout is None or (isinstance(timeout, int | float) and not isinstance(timeout, bool)):
        if timeout is None or timeout <= 600_000:
            body["timeout"] = 1


def lengthen(body: Any) -> None:
    """Replace the valid time limits of a body."""
    if isinstance(body, dict):
        for name in TIME_LIMITS:
            value = body.get(name)
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and 0 < value < LIMIT_S
            ):
                body[name] = LIMIT_S


def is_produced(body: Any) -> bool:
    return isinstance(body, dict) and body.get("producer") not in (None, False)


def is_scheduled(body: Any) -> bool:
    """Whether a body says when; what fits its schema is made right in what no schema says."""
    if not isinstance(body, dict) or all(body.get(name) is None for name in WHEN):
        return False
    if all(body.get(name) is None or _is_valid(name, body[name]) for name in WHEN):
        if body.get("cron") is None:
            body.pop("timezone", None)
        elif body.get("run_at") is not None:
            del body["run_at"]
        for name, value in (("cron", "0 8 * * 1"), ("timezone", "Europe/Berlin")):
            if body.get(name) is not None:
                body[name] = value
    return True


def _is_valid(name: str, value: Any) -> bool:
    kinds = WHEN_SCHEMAS[name].get("anyOf", [WHEN_SCHEMAS[name]])
    return any(_fits(value, kind) for kind in kinds)


def _fits(value: Any, schema: dict[str, Any]) -> bool:
    if isinstance(value, str):
        pattern, length = schema.get("pattern"), schema.get("maxLength", len(value))
        return bool(pattern and re.search(pattern, value)) and len(value) <= length
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and schema["type"] == "number" and 0 < value <= schema["maximum"]
