"""A trusted key names the user for whom it asks.

A product's backend has one key with the scope `act`, and its users need no credentials here: the
backend asks for each user by name, and the work belongs to that user. Pure.
Source: docs/protocol.md, "On behalf of a user".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api.errors import request_error
from shared.config.credentials import ACT, ADMIN, CONTENT, ORDINARY, Identity
from shared.config.owner_names import owner_name_problem

ON_BEHALF_OF = "x-on-behalf-of"


def act_for(identity: Identity, headers: Sequence[str]) -> Identity:
    """Return the identity of a user, with the scopes of the key that names the user.

    `admin`, `act` and `content` are left out, because a user is no operator and acts for nobody. A
    key with `admin` gives its users all ordinary scopes.

    Args:
        headers: the values of `X-On-Behalf-Of`, at least one, as latin-1 text of UTF-8 bytes.

    Raises:
        RequestError: 403, the credentials have no scope `act`; 422, no owner may have this name.
    """
    if not identity.may(ACT):
        raise request_error(
            "forbidden", f"X-On-Behalf-Of needs a key with the scope {ACT}: key:owner:{ACT}"
        )
    if len(headers) > 1:
        raise request_error("invalid_request", "X-On-Behalf-Of must come once")
    try:
        user = headers[0].encode("latin-1").decode("utf-8")
    except UnicodeError:
        raise request_error("invalid_request", "X-On-Behalf-Of must be UTF-8") from None
    if problem := owner_name_problem(user):
        raise request_error("invalid_request", f"X-On-Behalf-Of: the name {problem}")
    scopes = ORDINARY if ADMIN in identity.scopes else identity.scopes - {ACT, CONTENT}
    return replace(identity, owner=user, scopes=scopes, is_keyless=True, by=identity)
