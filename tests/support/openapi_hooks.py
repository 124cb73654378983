"""What schemathesis cannot read from the OpenAPI document, put into its requests.

Loaded by schemathesis itself, in a process of its own (tests/conformance/test_openapi.py).

* `Accept`: OpenAPI leaves it to the content types of the answers, and schemathesis sends none. Here
  each request gets one, chosen by what it asks, so that a run repeats itself.
* `Idempotency-Key`: two bodies under one key are refused, as they should be, which would look like
  a valid request that was turned down. A key that is valid is made one of its path and body.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import schemathesis

ACCEPTS = (None, "application/json", "text/event-stream", "application/x-ndjson", "*/*")
VALID_KEY = re.compile(r"[!-~]{1,255}")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    asked = (case.operation.label, case.path_parameters, case.query, case.body)
    said = zlib.crc32(repr(asked).encode())
    headers = case.headers if case.headers is not None else {}
    accept = ACCEPTS[said % len(ACCEPTS)]
    if accept is not None and "Accept" not in headers:
        headers["Accept"] = accept
    if VALID_KEY.fullmatch(str(headers.get("Idempotency-Key", ""))):
        headers["Idempotency-Key"] = f"key-{said}"
