"""CORS for the origins that the operator names; without any there is none.

Starlette's middleware, with one more rule: OpenAI's clients send a family of `x-stainless-*`
headers whose names grow with each release, and a preflight may name any of them. No credentials in
the sense of CORS: keys travel in a header that a page sets itself, never in a cookie.
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

ALLOWED_HEADERS = ("Authorization", "Content-Type", "Last-Event-ID", "Idempotency-Key")
EXPOSED_HEADERS = (
    "Location",
    "X-Generation-Id",
    "Retry-After",
    "x-workflow-run-id",
    "x-workflow-stream-tail-index",
)
METHODS = ("GET", "HEAD", "POST", "DELETE")
_REQUESTED = "access-control-request-headers"
_ALLOWED = "access-control-allow-headers"
_STAINLESS = re.compile(r"x-stainless-[a-z0-9-]{1,64}")


class Cors(CORSMiddleware):
    """Answers preflights, and marks the answers that the named origins may read."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        names = [name.strip().lower() for name in request_headers.get(_REQUESTED, "").split(",")]
        stainless = [name for name in names if _STAINLESS.fullmatch(name)]
        others = [name for name in names if name and name not in stainless]
        changed = MutableHeaders(raw=list(request_headers.raw))
        if others:
            changed[_REQUESTED] = ", ".join(others)
        elif _REQUESTED in changed:
            del changed[_REQUESTED]
        response = super().preflight_response(changed)
        if stainless:
            response.headers[_ALLOWED] = ", ".join([response.headers[_ALLOWED], *stainless])
        return response
