"""CORS for the origins that the operator lists; without listed origins there is no CORS.

Starlette's middleware with one more rule: a preflight may request any header. Browsers and clients
add headers of their own (`User-Agent` in Firefox and Safari, `openai-organization`, `traceparent`,
`x-stainless-*`), and a refused preflight stops the whole request. So the answer names the requested
headers, without those that no page may set and without names that are no tokens. Credentials in the
sense of CORS are not allowed: a page sends its key in a header, never in a cookie.
Source: the Fetch standard, "forbidden request-header".
"""

from __future__ import annotations

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from api.edge.limit_headers import EXPOSED

# Always allowed; a preflight's own headers come behind them.
ALLOWED_HEADERS = ("authorization", "content-type", "last-event-id", "idempotency-key")
EXPOSED_HEADERS = (
    "Location",
    "X-Generation-Id",
    "X-Heartbeat-S",
    "X-Request-Id",
    "X-Tailrace-Ignored",
    "Retry-After",
    *EXPOSED,
    "ETag",
    "Stream-Next-Offset",
    "Stream-Cursor",
    "Stream-Up-To-Date",
    "Stream-Closed",
    "Stream-TTL",
    "Stream-Expires-At",
    "Stream-SSE-Data-Encoding",
    "Producer-Epoch",
    "Producer-Seq",
    "Producer-Expected-Seq",
    "Producer-Received-Seq",
    "x-workflow-run-id",
    "x-workflow-stream-tail-index",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
# No page may set these names, so a browser never requests them.
FORBIDDEN = frozenset(
    {
        *("accept-charset", "accept-encoding", "connection", "content-length", "cookie", "cookie2"),
        *("access-control-request-headers", "access-control-request-method", "date", "dnt"),
        *("access-control-request-private-network", "expect", "host", "keep-alive", "origin"),
        *("referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "via"),
    }
)
FORBIDDEN_PREFIXES = ("proxy-", "sec-")
_REQUEST_HEADERS_NAME = "access-control-request-headers"
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")


class Cors(CORSMiddleware):
    """Answers preflights, and adds the CORS headers for listed origins to other answers."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        names = allowed_names(request_headers.getlist(_REQUEST_HEADERS_NAME))
        headers = MutableHeaders(raw=list(request_headers.raw))
        headers[_REQUEST_HEADERS_NAME] = ", ".join(dict.fromkeys((*ALLOWED_HEADERS, *names)))
        return super().preflight_response(headers)


def allowed_names(lines: list[str]) -> list[str]:
    """Return the names of `Access-Control-Request-Headers` that a page may send, in lower case."""
    names = (name.strip().lower() for line in lines for name in line.split(","))
    return [
        name
        for name in dict.fromkeys(names)
        if _TOKEN.fullmatch(name)
        and name not in FORBIDDEN
        and not name.startswith(FORBIDDEN_PREFIXES)
    ]
