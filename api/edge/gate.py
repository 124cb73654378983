"""Checks the host and the origin of every request before the router.

Two rules, for all routes and for WebSocket handshakes, so that a new route has them, too:

* A request has exactly one valid `Host`. On a node without credentials the node must accept that
  host (api/edge/host_names.py gives the reason).
* A browser's request with a method that may change something must come from the node's own pages or
  from an origin that the operator lists. Without a preflight, a page of any origin can send simple
  POSTs (the Fetch standard's CORS-safelisted requests) and open sockets; CORS protects only the
  answers.

A request that is refused here has started nothing, and its body was not read. Requests without
`Origin` and `Sec-Fetch-Site` do not come from a browser and pass the second rule: a client that can
omit these headers can also forge them.

Sources: RFC 9112 section 3.2, Fetch Metadata Request Headers, docs/protocol.md.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from api.edge.auth import Authenticator
from api.edge.host_names import read_host
from api.errors import request_error

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# The accepted values of Sec-Fetch-Site: a page of the same origin, or the user of the browser.
OWN_SITES = frozenset({"same-origin", "none"})


class Gate:
    """The ASGI layer around the router.

    Raises:
        RequestError: 400 `host_invalid`, 403 `forbidden`; the error boundary answers.
    """

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self.app = app
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = self._check_host(scope)
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            self._check_site(scope, host)
        await self.app(scope, receive, send)

    def _check_host(self, scope: Scope) -> str | None:
        """Return the `Host` header; None: HTTP/1.0 without it, which no browser sends.

        Raises:
            RequestError: 400 `host_invalid`; 403 `forbidden`, the node does not accept the host.
        """
        values = _values(scope, b"host")
        if not values and scope.get("http_version") == "1.0":
            return None
        host = read_host(values[0]) if len(values) == 1 else None
        if host is None:
            raise request_error("host_invalid", "send exactly one Host header, with a valid name")
        if not self.authenticator.accepts_host(host, (scope.get("server") or ("",))[0]):
            raise request_error(
                "forbidden",
                "this node does not answer to the name in Host; if the name is its own, "
                "its operator lists it in TAILRACE_HOSTS",
            )
        return values[0]

    def _check_site(self, scope: Scope, host: str | None) -> None:
        # Several header lines are one value (RFC 9110, 5.3), which is not a listed origin.
        origins = _values(scope, b"origin")
        origin = ", ".join(origins) if origins else None
        if self.authenticator.lists_origin(origin):
            return
        sites = _values(scope, b"sec-fetch-site")
        is_own = origin is None or self.authenticator.is_own_origin(origin, host)
        if not is_own or not OWN_SITES.issuperset(sites):
            raise request_error(
                "forbidden",
                "pages of this origin may start or end nothing here; "
                "the operator lists origins in TAILRACE_CORS_ORIGINS",
            )


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
