"""Who is asking: credentials become an identity, origins and host names are let in or not.

A key is never compared byte by byte: its SHA-256 is looked up in a dictionary, so the time that the
answer takes says nothing about how much of a guess was right. With no keys configured everybody is
the owner `anonymous`, and the node listens on loopback only unless the operator says otherwise.
Does no I/O after start-up. Source: docs/protocol.md, "Credentials".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from api.edge.host_names import Host, Hosts, read_hosts
from api.errors import request_error
from shared.config.credentials import (
    NOBODY_IN_PARTICULAR,
    VARIABLE,
    Identity,
    read_keys,
    short_keys,
)
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.text.redaction import remember

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Authenticator:
    """Knows the keys, the origins and the host names of one node.

    Args:
        identities: key -> identity; empty: credentials are not asked for.
        origins: what browsers may come from besides the node's own host; `*` is everywhere.
        hosts: what a node without credentials answers to.
    """

    def __init__(
        self,
        identities: Mapping[str, Identity],
        origins: tuple[str, ...] = (),
        hosts: Hosts | None = None,
    ) -> None:
        self._identities = {_digest(key.encode()): one for key, one in identities.items()}
        self.origins = origins
        self.owners_of_short_keys = short_keys(identities)
        self._hosts = hosts or Hosts()

    @classmethod
    def from_settings(cls, settings: Settings) -> Authenticator:
        """Read keys, origins and host names.

        Raises:
            ConfigurationError: malformed keys, origins or names, or a node that would listen beyond
                loopback without credentials and without `TAILRACE_AUTH=off`.
        """
        identities = read_keys(settings.api_keys)
        if identities and settings.auth == "off":
            raise ConfigurationError(f"TAILRACE_AUTH=off contradicts {VARIABLE}: unset one of them")
        if not identities and not settings.is_loopback and settings.auth != "off":
            raise ConfigurationError(
                f"TAILRACE_HOST={settings.host} is not loopback: set {VARIABLE}, "
                "or TAILRACE_AUTH=off to let everybody in"
            )
        remember(*identities)
        hosts = Hosts(settings.host, read_hosts(settings.hosts))
        return cls(identities, read_origins(settings.cors_origins), hosts)

    @property
    def is_configured(self) -> bool:
        return bool(self._identities)

    def owner(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return the owner that the credentials name; see `identify`."""
        return self.identify(headers, query).owner

    def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return the identity that the credentials name.

        Args:
            headers: by lower-case name, as latin-1 text (Starlette's `Headers`).
            query: for clients that cannot set headers, `access_token`.

        Raises:
            RequestError: 401, no or unknown credentials.
        """
        if not self._identities:
            return NOBODY_IN_PARTICULAR
        key = _presented_key(headers, query)
        identity = self._identities.get(_digest(key)) if key else None
        if identity is None:
            what = "unknown API key" if key else "an API key is needed"
            raise request_error("unauthorized", f"{what}: Authorization: Bearer <key>")
        return identity

    def answers_to(self, host: Host, arrived_at: str) -> bool:
        """Whether the node answers a request that names it `host`.

        With credentials it answers to any name: a stranger's page has no key, whatever its name.

        Args:
            arrived_at: the address of ours that the connection came to.
        """
        return self.is_configured or self._hosts.include(host, arrived_at)

    def lists_origin(self, origin: str | None) -> bool:
        """Whether the operator lets pages of this origin in; None: the request named none."""
        return "*" in self.origins or (origin is not None and origin.lower() in self.origins)

    def is_own_origin(self, origin: str, host: str | None) -> bool:
        """Whether `origin` is the node itself, as the request's `Host` names it."""
        own = _authority(f"{origin.partition('://')[0]}://{host}")
        return host is not None and own is not None and _authority(origin) == own


def read_origins(value: str) -> tuple[str, ...]:
    """Read a comma-separated list of `scheme://host[:port]`, or `*`."""
    origins = tuple(part.strip().rstrip("/").lower() for part in value.split(",") if part.strip())
    for origin in origins:
        has_wildcard = "*" in origin and origin != "*"
        if has_wildcard or (origin not in ("*", "null") and _authority(origin) is None):
            raise ConfigurationError(
                f"TAILRACE_CORS_ORIGINS: {origin!r} is not like https://example.org; "
                "list each origin, or * for all"
            )
    return origins


def _presented_key(headers: Mapping[str, str], query: Mapping[str, str]) -> bytes:
    if authorization := headers.get("authorization"):
        scheme, _, token = authorization.partition(" ")
        return token.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    return query.get("access_token", "").encode("utf-8", "surrogatepass")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _authority(url: str) -> tuple[str, int | None] | None:
    """Return host and port of an origin, None when it is none."""
    try:
        parts = urlsplit(url.lower())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    is_origin = parts.scheme and parts.hostname and not (parts.path or parts.query)
    return (str(parts.hostname), port) if is_origin else None
