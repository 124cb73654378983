"""Maps credentials to an identity, and decides which origins and host names a node accepts.

A key is never compared byte by byte: its SHA-256 is looked up in a dictionary, so the time of the
answer does not show how many bytes of a guess are right. Without configured keys every client is
the owner `anonymous`, and the node listens on loopback only, unless the operator sets
`TAILRACE_AUTH=off`. Does no I/O after start-up. Source: docs/protocol.md, "Credentials".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import urlsplit

from api.edge.host_names import Host, HostAllowlist, read_hosts
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
    """The keys, the accepted origins and the accepted host names of one node.

    Args:
        identities: key -> identity; empty: clients need no credentials.
        origins: the accepted origins of browser pages, besides the node's own; `*`: all origins.
        hosts: the accepted host names; used only without `identities`.

    Attributes:
        owners_of_short_keys: owners with a key below 16 characters, for a warning.
    """

    def __init__(
        self,
        identities: Mapping[str, Identity],
        origins: tuple[str, ...] = (),
        hosts: HostAllowlist | None = None,
    ) -> None:
        self._identities = {_digest(key.encode()): identity for key, identity in identities.items()}
        self.origins = origins
        self.owners_of_short_keys = short_keys(identities)
        self._hosts = hosts or HostAllowlist()

    @classmethod
    def from_settings(cls, settings: Settings) -> Authenticator:
        """Create the authenticator from the settings' keys, origins and host names.

        Raises:
            ConfigurationError: malformed keys, origins or names; or keys with `TAILRACE_AUTH=off`;
                or a node that would listen beyond loopback without keys and without
                `TAILRACE_AUTH=off`.
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
        hosts = HostAllowlist(settings.host, read_hosts(settings.hosts))
        return cls(identities, read_origins(settings.cors_origins), hosts)

    @property
    def is_configured(self) -> bool:
        """Whether the node has keys, so that clients need credentials."""
        return bool(self._identities)

    def owner(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return the owner of the credentials; arguments and errors as in `identify`."""
        return self.identify(headers, query).owner

    def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return the identity of the credentials.

        Args:
            headers: by lower-case name, as latin-1 text (Starlette's `Headers`).
            query: its `access_token` is the key of clients that cannot set headers. It counts
                only without an `Authorization` header.

        Raises:
            RequestError: 401 `unauthorized`, no or unknown credentials.
        """
        if not self._identities:
            return NOBODY_IN_PARTICULAR
        key = _presented_key(headers, query)
        identity = self._identities.get(_digest(key)) if key else None
        if identity is None:
            reason = "unknown API key" if key else "an API key is needed"
            raise request_error("unauthorized", f"{reason}: Authorization: Bearer <key>")
        return identity

    def accepts_host(self, host: Host, local_address: str) -> bool:
        """Return whether the node answers requests with this `Host`.

        A node with credentials accepts every host: a foreign page has no key.

        Args:
            local_address: this node's address of the connection.
        """
        return self.is_configured or self._hosts.includes(host, local_address)

    def lists_origin(self, origin: str | None) -> bool:
        """Return whether the operator lists this origin; None: a request without an origin."""
        return "*" in self.origins or (origin is not None and origin.lower() in self.origins)

    def is_own_origin(self, origin: str, host: str | None) -> bool:
        """Return whether `origin` has the same host and port as the request's `Host` header."""
        own = _authority(f"{origin.partition('://')[0]}://{host}")
        return host is not None and own is not None and _authority(origin) == own


def read_origins(value: str) -> tuple[str, ...]:
    """Read a comma-separated list of `scheme://host[:port]`, `null`, or `*`.

    Raises:
        ConfigurationError: an entry is none of these.
    """
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
    """Return the host and port of an origin; None: `url` is not an origin."""
    try:
        parts = urlsplit(url.lower())
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    is_origin = parts.scheme and parts.hostname and not (parts.path or parts.query)
    return (str(parts.hostname), port) if is_origin else None
