"""Turns the claims of a token whose signature is good into an identity, or refuses them.

The rules are those of RFC 7519 and RFC 8725, and stricter where these leave a choice: `exp` and
`sub` are required, a claim of the wrong type refuses the token, and a token that names an audience
needs a node that has one. Pure: the caller gives the time. Invariant: no message quotes a claim.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.config.credentials import (
    ADMIN,
    CONTENT,
    LEEWAY_S,
    ORDINARY,
    SESSION_CHARACTERS_MAX,
    Identity,
)
from shared.config.limits import claim_problem
from shared.config.owner_names import owner_name_problem

TIME_MAX = 253_402_300_800  # the year 10000: a later time is a mistake, for instance milliseconds
SESSIONS_MAX = 100  # names in the claim `sessions`
LIMITS_MAX = 32  # members of the claim `limits`
GROUPS_MAX = 1_000  # names in the claim `groups`


class TokenRefused(Exception):
    """The token is not accepted; the text says why, for the client, and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """The rules of this deployment for a token.

    Attributes:
        audience: one of the token's audiences; "": the token must name none.
        issuer: the token's issuer; "": any, or none.
    """

    audience: str = ""
    issuer: str = ""

    def identity(self, payload: bytes, now: float) -> Identity:
        """Return the identity that the payload of a token describes.

        Args:
            now: Unix seconds.

        Raises:
            TokenRefused: not an object, a claim is missing, wrong or of the wrong type, or the
                token is expired or not valid yet.
        """
        claims = _decode(payload)
        expires_at = _check_times(claims, now)
        self._check_issuer(claims.get("iss"))
        self._check_audience(claims.get("aud"))
        if problem := owner_name_problem(claims.get("sub")):
            raise TokenRefused(f"its claim sub {problem}")
        return Identity(
            claims["sub"],
            _scopes(claims),
            sessions=_sessions(claims),
            expires_at=expires_at,
            limits=_limits(claims),
            groups=_groups(claims),
            is_keyless=True,
        )

    def _check_issuer(self, issuer: Any) -> None:
        if issuer is not None and not isinstance(issuer, str):
            raise TokenRefused("its claim iss must be a string")
        if self.issuer and issuer != self.issuer:
            raise TokenRefused("its claim iss names another issuer, or none")

    def _check_audience(self, audience: Any) -> None:
        names = [audience] if isinstance(audience, str) else audience
        if names is not None and not _is_list_of_texts(names):
            raise TokenRefused("its claim aud must be a string or a list of strings")
        if not self.audience and names:
            # RFC 7519, 4.1.3: who is not named in aud must refuse the token.
            raise TokenRefused("it is for an audience, and TAILRACE_JWT_AUDIENCE is not set")
        if self.audience and self.audience not in (names or ()):
            raise TokenRefused("its claim aud names another audience, or none")


def _decode(payload: bytes) -> Mapping[str, Any]:
    try:
        claims = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("its claims are not JSON") from None
    if not isinstance(claims, dict):
        raise TokenRefused("its claims are not a JSON object")
    return claims


def _check_times(claims: Mapping[str, Any], now: float) -> float:
    """Return when the token expires, Unix s; raise TokenRefused if it is not valid at `now`."""
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise TokenRefused("it has no claim exp")
    if expires_at + LEEWAY_S <= now:
        raise TokenRefused("it has expired")
    for name in ("nbf", "iat"):
        begins_at = _time(claims, name)
        if begins_at is not None and begins_at > now + LEEWAY_S:
            raise TokenRefused(f"it is not valid yet: its claim {name} is in the future")
    return expires_at


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value < TIME_MAX:
        raise TokenRefused(f"its claim {name} must be a number of seconds since 1970")
    return float(value)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes of the claim; words of other systems in it are ignored.

    Only a token without the claim has all ordinary scopes. A null may come from an issuer that
    wanted to give none, so it is refused like any other claim of a wrong type.
    """
    if "scope" not in claims:
        return ORDINARY
    value = claims["scope"]
    if not isinstance(value, str):
        raise TokenRefused("its claim scope must be a string, with spaces between the scopes")
    return frozenset(value.split(" ")) & (ORDINARY | {ADMIN, CONTENT})


def _sessions(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("sessions")
    if value is None:
        return ()
    if not _is_list_of_texts(value) or len(value) > SESSIONS_MAX:
        raise TokenRefused(f"its claim sessions must be a list of at most {SESSIONS_MAX} strings")
    for name in value:
        beginning = name.removesuffix("*")
        if not 0 < len(beginning) <= SESSION_CHARACTERS_MAX or "*" in beginning:
            raise TokenRefused("its claim sessions: each a name, or its beginning and then a *")
    return tuple(value)


def _limits(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    value = claims.get("limits")
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > LIMITS_MAX:
        raise TokenRefused(f"its claim limits must be an object of at most {LIMITS_MAX} members")
    if problem := claim_problem(value):
        raise TokenRefused(f"its claim limits: {problem}")
    return value


def _groups(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the claim; only those of limits.toml mean something here."""
    value = claims.get("groups")
    if value is None:
        return ()
    if not _is_list_of_texts(value) or len(value) > GROUPS_MAX:
        raise TokenRefused(f"its claim groups must be a list of at most {GROUPS_MAX} strings")
    return tuple(value)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
