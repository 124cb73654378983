"""Identifies the client of each request before its handler runs, and checks the scope.

`admit` notes the identity in the ASGI scope, where the handlers find it (`Node.identity`), so the
credentials are checked once for each request. Knows no route: the caller says what is needed.
"""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import Scope

from api.access import ANY, PUBLIC
from api.edge.auth import Authenticator
from api.errors import request_error
from api.transport.extensions import CHECKED_AT, IDENTITY
from shared.config.credentials import ADMIN, Identity

OPERATORS_ONLY = "this needs an operator's key: key:owner:admin in TAILRACE_API_KEYS"


def check_scope(identity: Identity, needed: str) -> None:
    """Refuse an identity without the scope.

    Raises:
        RequestError: 403 `forbidden`; the message names the scope.
    """
    if needed in (ANY, PUBLIC) or identity.may(needed):
        return
    if needed == ADMIN:
        raise request_error("forbidden", f"{OPERATORS_ONLY}, or a token with the scope {ADMIN}")
    raise request_error("forbidden", f"these credentials lack the scope {needed}")


def check_share(identity: Identity, *, is_shared: bool) -> None:
    """Refuse the token of a share where it may do nothing.

    Raises:
        RequestError: 403 `forbidden`.
    """
    if identity.share is not None and not is_shared:
        raise request_error("forbidden", "the token of a share reads one generation or session")


async def admit(
    authenticator: Authenticator, scope: Scope, needed: str, *, is_shared: bool = False
) -> Identity | None:
    """Identify the client of a request, check its scope, and note its identity in `scope`.

    Args:
        is_shared: tokens of shares may come.

    Returns:
        Who asks; None: the request needs no credentials.

    Raises:
        RequestError: 401, no or unknown credentials; 403, the scope is missing.
    """
    if needed == PUBLIC:
        return None
    connection = HTTPConnection(scope)
    identity = await authenticator.authenticate(Headers(scope=scope), connection.query_params)
    check_share(identity, is_shared=is_shared)
    check_scope(identity, needed)
    scope[IDENTITY] = identity
    scope[CHECKED_AT] = time.time()
    return identity
