"""Who is asking: credentials become an owner, origins are let in or not.

A key is never compared byte by byte: its SHA-256 is looked up in a dictionary, so the time that the
answer takes says nothing about how much of a guess was right. With no keys configured everybody is
the owner `anonymous`, and the node listens on loopback only unless the operator says otherwise.
Does no I/O after start-up. Source: docs/protocol.md, "Credentials".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from api.errors import request_error
from shared.errors import ConfigurationError
from shared.redaction import remember
from shared.settings import Settings

ANONYMOUS = "anonymous"
VARIABLE = "TAILRACE_API_KEYS"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Authenticator:
    """Knows the keys and the origins of one node.

    Args:
        owners: key -> owner; empty: credentials are not asked for.
        origins: what browsers may come from besides the node's own host; `*` is everywhere.
    """

    def __init__(self, owners: Mapping[str, str], origins: tuple[str, ...] = ()) -> None:
        self._owners = {_digest(key.encode()): owner for key, owner in owners.items()}
        self.origins = origins

    @classmethod
    def from_settings(cls, settings: Settings) -> Authenticator:
        """Read keys and origins.

        Raises:
            ConfigurationError: malformed keys or origins, or a node that would listen beyond
                loopback without credentials and without `TAILRACE_AUTH=off`.
        """
        owners = read_keys(settings.api_keys)
        if owners and settings.auth == "off":
            raise ConfigurationError(f"TAILRACE_AUTH=off contradicts {VARIABLE}: unset one of them")
        if not owners and not settings.is_loopback and settings.auth != "off":
            raise ConfigurationError(
                f"TAILRACE_HOST={settings.host} is not loopback: set {VARIABLE}, "
                "or TAILRACE_AUTH=off to let everybody in"
            )
        remember(*owners)
        return cls(owners, read_origins(settings.cors_origins))

    @property
    def is_configured(self) -> bool:
        return bool(self._owners)

    def owner(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return the owner that the credentials name.

        Args:
            headers: by lower-case name, as latin-1 text (Starlette's `Headers`).
            query: for clients that cannot set headers, `access_token`.

        Raises:
            RequestError: 401, no or unknown credentials.
        """
        if not self._owners:
            return ANONYMOUS
        key = _presented_key(headers, query)
        owner = self._owners.get(_digest(key)) if key else None
        if owner is None:
            what = "unknown API key" if key else "an API key is needed"
            raise request_error("unauthorized", f"{what}: Authorization: Bearer <key>")
        return owner

    def allows_origin(self, origin: str | None, host: str | None) -> bool:
        """Whether a WebSocket may be opened from `origin`; CORS does not guard sockets.

        Args:
            origin: the `Origin` header; None: not a browser, nothing to guard against.
            host: the `Host` header; the node's own pages are always let in.
        """
        if origin is None or "*" in self.origins:
            return True
        if origin.lower() in self.origins:
            return True
        own = _authority(f"{origin.partition('://')[0]}://{host}")
        return host is not None and own is not None and _authority(origin) == own


def read_keys(value: str) -> dict[str, str]:
    """Read `key:owner` pairs, separated by commas or lines, or the file of them that `value` names.

    In a file, empty lines and those that start with `#` are skipped. The first colon separates.
    """
    if not value:
        return {}
    try:
        text = Path(value).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{VARIABLE}: {exc}") from exc
    except (OSError, ValueError) as exc:
        if ":" not in value:
            raise ConfigurationError(
                f"{VARIABLE} is neither key:owner pairs nor a file that can be read"
            ) from exc
        text = value
    owners: dict[str, str] = {}
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            _read_pairs(line, owners)
    if not owners:
        raise ConfigurationError(f"{VARIABLE} names no key")
    return owners


def _read_pairs(line: str, owners: dict[str, str]) -> None:
    for pair in filter(None, map(str.strip, line.split(","))):
        key, _, owner = (part.strip() for part in pair.partition(":"))
        # The key itself must not reach a log.
        if not key or not owner:
            raise ConfigurationError(f"{VARIABLE}: every entry must be key:owner, neither empty")
        if owners.get(key, owner) != owner:
            raise ConfigurationError(f"{VARIABLE}: one key belongs to {owners[key]} and {owner}")
        owners[key] = owner


def read_origins(value: str) -> tuple[str, ...]:
    """Read a comma-separated list of `scheme://host[:port]`, or `*`."""
    origins = tuple(part.strip().rstrip("/").lower() for part in value.split(",") if part.strip())
    for origin in origins:
        if origin not in ("*", "null") and _authority(origin) is None:
            raise ConfigurationError(
                f"TAILRACE_CORS_ORIGINS: {origin!r} is not like https://example.org"
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
