"""CORS for the origins that the operator lists; without listed origins there is no CORS.

Starlette's middleware with one more rule: OpenAI's clients send `x-stainless-*` headers, and each
release adds names, so a preflight may request any of them. Credentials in the sense of CORS are not
allowed: a page sends its key in a header, never in a cookie.
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
    "X-Tailrace-Ignored",
    "Retry-After",
    "x-workflow-run-id",
    "x-workflow-stream-tail-index",
)
METHODS = ("GET", "HEAD", "POST", "DELETE")
_REQUEST_HEADERS_NAME = "access-control-request-headers"
_ALLOW_HEADERS_NAME = "access-control-allow-headers"
_STAINLESS = re.compile(r"x-stainless-[a-z0-9-]{1,64}")


class Cors(CORSMiddleware):
    """Answers preflights, and adds the CORS headers for listed origins to other answers."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=ALLOWED_HEADERS,
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        names = [
            name.strip().lower()
            for name in request_headers.get(_REQUEST_HEADERS_NAME, "").split(",")
        ]
        stainless = [name for name in names if _STAINLESS.fullmatch(name)]
        others = [name for name in names if name and name not in stainless]
        headers = MutableHeaders(raw=list(request_headers.raw))
        if others:
            headers[_REQUEST_HEADERS_NAME] = ", ".join(others)
        elif _REQUEST_HEADERS_NAME in headers:
            del headers[_REQUEST_HEADERS_NAME]
        response = super().preflight_response(headers)
        if stainless:
            response.headers[_ALLOW_HEADERS_NAME] = ", ".join(
                [response.headers[_ALLOW_HEADERS_NAME], *stainless]
            )
        return response
