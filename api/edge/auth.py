"""Maps credentials to an identity, and decides which origins and host names a node accepts.

A key is never compared byte by byte: its SHA-256 is looked up in a dictionary, so the time of the
answer does not show how many bytes of a guess are right. Credentials that are no key may be a token
(api/identity). Without configured credentials every client is the owner `anonymous`, and the node
listens on loopback only, unless the operator sets `TAILRACE_AUTH=off`. Source: docs/protocol.md,
"Credentials".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from api.edge.host_names import Host, HostAllowlist, read_hosts
from api.errors import RETRY_AFTER_S, request_error
from api.identity.carriers import read_presented
from api.identity.claims import TokenRefused
from api.identity.on_behalf import ON_BEHALF_OF, act_for
from api.identity.token_check import TokenCheck
from api.identity.verifier import KeyUnknown, has_form
from shared.config.credentials import (
    ANONYMOUS_IDENTITY,
    VARIABLE,
    Identity,
    named,
    short_keys,
)
from shared.config.key_file import KeyFile
from shared.config.settings import Settings
from shared.errors import ConfigurationError, RequestError
from shared.later.shares import TOKEN_PREFIX, Shares

logger = logging.getLogger(__name__)

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
SHARE_PREFIX = TOKEN_PREFIX.encode()
KEY_FILE_CHECK_S = 1.0  # between two looks at the file of the keys


class Authenticator:
    """The keys, the accepted origins and the accepted host names of one node.

    Args:
        identities: key -> identity.
        origins: the accepted origins of browser pages, besides the node's own; `*`: all origins.
        hosts: the accepted host names; used only where clients need no credentials.
        tokens: checks tokens; None: tokens are not accepted. Without `identities` and `tokens`
            clients need no credentials.

    Attributes:
        owners_of_short_keys: owners with a key below 16 characters, for a warning.
        shares: checks tokens of shares; None: they are not accepted. The node sets it.
        on_keys_changed: called after the keys of a changed file are in use. The node sets it.
    """

    def __init__(
        self,
        identities: Mapping[str, Identity],
        origins: tuple[str, ...] = (),
        hosts: HostAllowlist | None = None,
        *,
        tokens: TokenCheck | None = None,
    ) -> None:
        self.origins = origins
        self.tokens = tokens
        self.shares: Shares | None = None
        self._hosts = hosts or HostAllowlist()
        self.on_keys_changed: Callable[[], None] = lambda: None
        self._key_file: KeyFile | None = None
        self._use(identities)

    @classmethod
    def from_settings(cls, settings: Settings) -> Authenticator:
        """Create the authenticator from the settings' credentials, origins and host names.

        Raises:
            ConfigurationError: malformed keys, origins or names; or credentials with
                `TAILRACE_AUTH=off`; or a node that would listen beyond loopback without
                credentials and without `TAILRACE_AUTH=off`.
        """
        key_file = KeyFile(settings.api_keys)
        tokens = TokenCheck.from_settings(settings)
        is_configured = bool(key_file.identities) or tokens is not None
        if is_configured and settings.auth == "off":
            name = VARIABLE if key_file.identities else "a TAILRACE_JWT_ variable"
            raise ConfigurationError(f"TAILRACE_AUTH=off contradicts {name}: unset one of them")
        if not is_configured and not settings.is_loopback and settings.auth != "off":
            raise ConfigurationError(
                f"TAILRACE_HOST={settings.host} is not loopback: set {VARIABLE} (or "
                "TAILRACE_JWT_SECRET or TAILRACE_JWT_JWKS), "
                "or TAILRACE_AUTH=off to let everybody in"
            )
        hosts = HostAllowlist(settings.host, read_hosts(settings.hosts))
        found = cls(key_file.identities, read_origins(settings.cors_origins), hosts, tokens=tokens)
        found._key_file = key_file
        return found

    @property
    def is_configured(self) -> bool:
        """Whether the node has keys or checks tokens, so that clients need credentials."""
        return bool(self._identities) or self.tokens is not None

    @property
    def problems(self) -> dict[str, str]:
        """Return each key source whose last refresh failed, and why; for /readyz.

        The node still uses the earlier keys.
        """
        found = {
            "api_keys": self._key_file.problem if self._key_file else "",
            "token_keys": self.tokens.problem if self.tokens else "",
        }
        return {name: reason for name, reason in found.items() if reason}

    def is_key_revoked(self, identity: Identity) -> bool:
        """Whether the key of an identity was removed from the file of keys since it was found.

        If another key has the same owner and scopes, the identity stays valid: a person who gets a
        new key keeps the connections that were opened with the old one. The result is False for
        tokens and shares. For a user on whose behalf a key asks, the method checks that key.
        """
        key = identity.by or identity
        is_of_key = not key.is_keyless and key.share is None
        return is_of_key and self.is_configured and key not in self._valid

    def is_key_revocable(self, identity: Identity) -> bool:
        """Whether the key of an identity stands in a file, and may be removed from the file."""
        key = identity.by or identity
        is_of_key = not key.is_keyless and key.share is None
        return is_of_key and self._key_file is not None and self._key_file.is_file

    async def run(self) -> None:
        """Keep the keys up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_key_file(), name="key file")
            if self.tokens is not None:
                group.create_task(self.tokens.run(), name="token keys")

    async def _watch_key_file(self) -> None:
        while self._key_file is not None and self._key_file.is_file:
            await asyncio.sleep(KEY_FILE_CHECK_S)
            await self.look_at_key_file()

    async def look_at_key_file(self) -> None:
        """Use the keys of the key file if it has changed."""
        key_file = self._key_file
        if key_file is None or not await asyncio.to_thread(key_file.look):
            return
        if key_file.problem:
            # The reason is ours, and quotes no entry of the file.
            logger.error("api keys not read again", extra={"reason": key_file.problem})
            return
        self._use(key_file.identities)
        self.on_keys_changed()
        logger.info("api keys read again", extra={"keys": len(key_file.identities)})
        if owners := self.owners_of_short_keys:
            logger.warning("api keys short", extra={"keys": len(owners), "owners": named(owners)})

    def _use(self, identities: Mapping[str, Identity]) -> None:
        self._identities = {_digest(key.encode()): identity for key, identity in identities.items()}
        self._valid = frozenset(identities.values())
        self.owners_of_short_keys = short_keys(identities)

    def owner(self, headers: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return the owner of the credentials; arguments and errors as in `identify`."""
        return self.identify(headers, query).owner

    def is_anonymous(
        self, headers: Mapping[str, str], query: Mapping[str, str], subprotocols: Sequence[str]
    ) -> bool:
        """Whether clients need credentials here, and a request has no place for them."""
        return self.is_configured and read_presented(headers, query, subprotocols).is_silent

    def identify(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Identity:
        """Return the identity of the credentials, with the keys that are known now.

        Args:
            headers, query: as of `read_presented`.

        Raises:
            RequestError: 401 `unauthorized`, no or unknown credentials.
        """
        try:
            return self._find(read_presented(headers, query).credential)
        except TokenRefused as exc:
            raise _refusal(exc) from None

    async def authenticate(
        self,
        headers: Headers,
        query: Mapping[str, str],
        subprotocols: Sequence[str] = (),
    ) -> Identity:
        """Return the identity of a request.

        If the token names an unknown key, first fetch newer keys from the issuer.

        Raises:
            RequestError: as `check` and `act_for`.
        """
        presented = read_presented(headers, query, subprotocols)
        identity = await self.check(presented.credential)
        users = headers.getlist(ON_BEHALF_OF)
        return act_for(identity, users) if users else identity

    def act_for(self, identity: Identity, user: str) -> Identity:
        """Return the identity of a user whom a request with the scope `act` names in its body.

        Raises:
            RequestError: as `api.identity.on_behalf.act_for`.
        """
        return act_for(identity, [user.encode("utf-8", "surrogatepass").decode("latin-1")])

    async def check(self, credential: bytes) -> Identity:
        """Return the identity of a key or a token; empty: there is none.

        Raises:
            RequestError: 401 as `identify`; 503 `unavailable`: the keys that check tokens have
                never been fetched.
            Unavailable: Redis did not answer for the token of a share.
        """
        if credential.startswith(SHARE_PREFIX) and _digest(credential) not in self._identities:
            return await self._check_share(credential)
        try:
            try:
                return self._find(credential)
            except KeyUnknown:
                assert self.tokens is not None
                await self.tokens.look_for_unknown()
                return self._find(credential)
        except KeyUnknown as exc:
            assert self.tokens is not None
            if self.tokens.has_no_keys:
                raise request_error(
                    "unavailable",
                    "the keys that check tokens cannot be fetched right now",
                    retry_after_s=RETRY_AFTER_S,
                ) from None
            raise _refusal(exc) from None
        except TokenRefused as exc:
            raise _refusal(exc) from None

    async def _check_share(self, credential: bytes) -> Identity:
        """Return who comes with the token of a share; it costs one read of Redis."""
        if not self.is_configured:
            return ANONYMOUS_IDENTITY
        identity = None if self.shares is None else await self.shares.identify(credential)
        if identity is None:
            raise request_error("unauthorized", "the share has ended, or its token is wrong")
        return identity

    def _find(self, credential: bytes) -> Identity:
        """Return the identity of a credential; raises RequestError or TokenRefused."""
        if not self.is_configured:
            return ANONYMOUS_IDENTITY
        if not credential:
            raise request_error(
                "unauthorized", "an API key or a token is needed: Authorization: Bearer <key>"
            )
        identity = self._identities.get(_digest(credential))
        if identity is not None:
            return identity
        if self.tokens is not None and has_form(credential):
            return self.tokens.identify(credential, time.time())
        raise request_error("unauthorized", "unknown API key: Authorization: Bearer <key>")

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


def _refusal(reason: TokenRefused) -> RequestError:
    return request_error("unauthorized", f"the token is refused: {reason}")


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
