"""The check of tokens as the settings demand it: secrets, public keys, audience and issuer.

Joins the verifier, which decides, with the source of the public keys, which does the I/O.
"""

from __future__ import annotations

import asyncio
import re
import time

from api.identity.claims import ClaimRules
from api.identity.key_source import KeySource
from api.identity.verifier import TokenVerifier
from shared.config.credentials import Identity
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.text.redaction import remember

PUBLIC_KEY_CHECK_S = 1.0  # between two looks whether the public keys are due
SECRET_BYTES_MIN = 32  # RFC 7518, 3.2: an HMAC of 256 bits; a shorter secret causes a warning
# A public key in the place of a secret: everybody could sign with it.
_PUBLIC_KEY = re.compile(r"-----BEGIN|^ssh-|^ecdsa-|^\s*\{")


class TokenCheck:
    """Checks the tokens of one node.

    Args:
        source: None: no public keys are configured.
        has_short_secret: a secret is below `SECRET_BYTES_MIN`, for a warning.
    """

    def __init__(
        self, verifier: TokenVerifier, source: KeySource | None, *, has_short_secret: bool = False
    ) -> None:
        self.has_short_secret = has_short_secret
        self._verifier = verifier
        self._source = source

    @classmethod
    def from_settings(cls, settings: Settings) -> TokenCheck | None:
        """Create the check; None: the settings name neither a secret nor public keys.

        Raises:
            ConfigurationError: a secret is a public key, the key set cannot be read, or a setting
                has no effect without another.
        """
        secrets = [each for each in (settings.jwt_secret, settings.jwt_secret_previous) if each]
        if any(_PUBLIC_KEY.search(secret) for secret in secrets):
            raise ConfigurationError(
                "TAILRACE_JWT_SECRET must be a shared secret, not a key in PEM, SSH or JSON form; "
                "TAILRACE_JWT_JWKS names public keys"
            )
        if settings.jwt_secret_previous and not settings.jwt_secret:
            raise ConfigurationError("TAILRACE_JWT_SECRET_PREVIOUS needs TAILRACE_JWT_SECRET")
        if not secrets and not settings.jwt_jwks:
            if settings.jwt_audience or settings.jwt_issuer:
                raise ConfigurationError(
                    "TAILRACE_JWT_AUDIENCE and TAILRACE_JWT_ISSUER need "
                    "TAILRACE_JWT_SECRET or TAILRACE_JWT_JWKS"
                )
            return None
        remember(*secrets)
        rules = ClaimRules(settings.jwt_audience, settings.jwt_issuer)
        verifier = TokenVerifier(rules, secrets)
        source = None
        if settings.jwt_jwks:
            source = KeySource(settings.jwt_jwks, verifier.replace_keys, time.monotonic)
        is_short = any(len(secret.encode()) < SECRET_BYTES_MIN for secret in secrets)
        return cls(verifier, source, has_short_secret=is_short)

    @property
    def problem(self) -> str:
        """Why the public keys are not fresh; "": they are."""
        return self._source.problem if self._source is not None else ""

    @property
    def has_no_keys(self) -> bool:
        """Whether public keys are configured and none could be fetched since the start."""
        return self._source is not None and not len(self._verifier.keys)

    def identify(self, token: bytes, now: float) -> Identity:
        """Return the identity of a token; raises as `TokenVerifier.verify`."""
        return self._verifier.recall(token, now) or self._verifier.verify(token, now)

    async def look_for_unknown(self) -> None:
        """Get newer public keys if that is allowed now."""
        if self._source is not None:
            await self._source.look_for_unknown()

    async def run(self) -> None:
        """Keep the public keys up to date until cancelled."""
        if self._source is None:
            return
        while True:
            await self._source.look()
            await asyncio.sleep(PUBLIC_KEY_CHECK_S)
