"""Who may use the console: operators; without credentials only programs of this machine."""

from __future__ import annotations

from starlette.requests import Request

from api.edge.gate import OWN_SITES
from api.errors import request_error
from api.node import Node
from api.transport.peer import is_passed_on
from shared.config.credentials import Identity
from shared.text.addresses import as_address


def operator_of(node: Node, request: Request) -> Identity:
    """Return the operator who asks. The route's row in api/access.py requires the scope `admin`.

    A node without credentials takes every client for an operator. The console can end the work of
    everybody, so there it is open on loopback only, and not through a proxy.

    Raises:
        RequestError: 403 `forbidden`.
    """
    identity = node.identity(request)
    if not node.authenticator.is_configured and not is_local(request):
        raise request_error(
            "forbidden",
            "without credentials the console is open on loopback only: set TAILRACE_API_KEYS with "
            "an operator's key (key:owner:admin), or open the console on the machine of the node",
        )
    sites = request.headers.getlist("sec-fetch-site")
    if not OWN_SITES.issuperset(sites):
        raise request_error("forbidden", "the console answers to its own page only")
    return identity


def is_local(request: Request) -> bool:
    """Whether a request comes from this machine, and no proxy has passed it on."""
    host = request.client.host if request.client is not None else ""
    address = as_address(host)
    is_loopback = address is not None and address.is_loopback
    return is_loopback and not is_passed_on(request.headers.raw)
