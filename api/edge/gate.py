"""What every request must pass before a route sees it: the host that it names, the site it is from.

Two rules, for all routes and for WebSocket handshakes alike, so that a new route has them too:

* Exactly one valid `Host`; on a node without credentials it must be a name that the node answers
  to (api/edge/host_names.py says why).
* A browser's request that may change something must come from the node's own pages or from an
  origin that the operator lists. A page of any origin can send simple POSTs without asking (the
  Fetch standard's CORS-safelisted requests), and open sockets. CORS only guards the answers.

What is refused here has read no body and started nothing. Requests without `Origin` and
`Sec-Fetch-Site` are no browser's and pass the second rule: whoever can leave them out can also
forge them. Sources: RFC 9112 section 3.2, Fetch Metadata Request Headers, docs/protocol.md.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from api.edge.auth import Authenticator
from api.edge.host_names import read_host
from api.errors import request_error

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# What a browser says of its own request: by a page of this origin, or by the person at it.
OWN_SITES = frozenset({"same-origin", "none"})


class Gate:
    """The ASGI layer around the router.

    Raises to the layer around it, which answers:
        RequestError: 400 `host_invalid`, 403 `forbidden`.
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
        """Return the `Host` header; None: HTTP/1.0 without one, which no browser speaks."""
        values = _values(scope, b"host")
        if not values and scope.get("http_version") == "1.0":
            return None
        host = read_host(values[0]) if len(values) == 1 else None
        if host is None:
            raise request_error("host_invalid", "send exactly one Host header, with a valid name")
        if not self.authenticator.answers_to(host, (scope.get("server") or ("",))[0]):
            raise request_error(
                "forbidden",
                "this node does not answer to the name in Host; if the name is its own, "
                "its operator lists it in TAILRACE_HOSTS",
            )
        return values[0]

    def _check_site(self, scope: Scope, host: str | None) -> None:
        # Several lines of one name are one value (RFC 9110, 5.3): then no origin that is listed.
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
