"""Checks tokens: form, algorithm, key, signature, claims; and remembers the good ones.

PyJWT and cryptography check the signature; api/identity/claims.py checks the claims. A token that
was found good is remembered by its digest until it expires or its key is taken away, so a token
that comes again costs two dictionary look-ups. Pure: the caller gives keys and time. Invariant: no
message and no exception quotes a token.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWS
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import PyJWTError

from api.identity.claims import ClaimRules, TokenRefused
from api.identity.key_set import HMAC_ALGORITHMS, KEY_ALGORITHMS, KeySet
from shared.config.credentials import LEEWAY_S, Identity

TOKEN_BYTES_MAX = 8_192
KID_CHARACTERS_MAX = 256
REMEMBERED_MAX = 10_000  # good tokens; the one that was used least recently is forgotten first
_FORM = re.compile(rb"[\w-]+\.[\w-]*\.[\w-]*", re.ASCII)
# The `typ` of a token for access (RFC 9068); tokens for other purposes have types of their own.
_TYPES = frozenset({"", "jwt", "application/jwt", "at+jwt", "application/at+jwt"})


def has_form(credential: bytes) -> bool:
    """Whether a credential looks like a token: three parts of base64url without padding."""
    return _FORM.fullmatch(credential) is not None


class KeyUnknown(TokenRefused):
    """No key that is known here has the token's `kid`; a newer set may have it."""


class _Hmac(HMACAlgorithm):
    """HMAC without a warning for each token: a short secret is reported once, at the start."""

    def check_key_length(self, key: bytes) -> str | None:
        return None


class TokenVerifier:
    """Checks the tokens of one node.

    Args:
        rules: what the claims must be.
        secrets: for HMACs; any of them may have signed.

    Attributes:
        keys: the public keys; `replace_keys` changes them.
    """

    def __init__(self, rules: ClaimRules, secrets: Sequence[str] = ()) -> None:
        self.rules = rules
        self.keys = KeySet()
        self._secrets = [secret.encode() for secret in secrets if secret]
        self._remembered: OrderedDict[bytes, Identity] = OrderedDict()
        self._signatures = PyJWS(algorithms=list(KEY_ALGORITHMS))
        for name in HMAC_ALGORITHMS:
            bits = {"HS256": _Hmac.SHA256, "HS384": _Hmac.SHA384, "HS512": _Hmac.SHA512}[name]
            self._signatures.register_algorithm(name, _Hmac(bits))

    def __len__(self) -> int:
        return len(self._remembered)

    def replace_keys(self, keys: KeySet) -> None:
        """Use another set of public keys; tokens of keys that it lacks are good no longer."""
        self.keys = keys
        self._remembered.clear()

    def recall(self, token: bytes, now: float) -> Identity | None:
        """Return the identity of a token that was found good before; None: check it."""
        digest = hashlib.sha256(token).digest()
        found = self._remembered.get(digest)
        if found is None:
            return None
        assert found.expires_at is not None
        if found.expires_at + LEEWAY_S <= now:
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        return found

    def verify(self, token: bytes, now: float) -> Identity:
        """Check a token, and remember it if it is good.

        Args:
            now: Unix seconds.

        Raises:
            KeyUnknown: its key is not known; with a newer key set it may be good.
            TokenRefused: it is not good.
        """
        payload = self._payload(token)
        identity = self.rules.identity(payload, now)
        self._remembered[hashlib.sha256(token).digest()] = identity
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return identity

    def _payload(self, token: bytes) -> bytes:
        """Return the payload of a token whose signature is good."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenRefused(f"it is longer than {TOKEN_BYTES_MAX} bytes")
        if not has_form(token):
            raise TokenRefused("it cannot be read")
        header = _read_header(token)
        algorithm, kid, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "")
        if not isinstance(algorithm, str) or not isinstance(kind, str) or "crit" in header:
            raise TokenRefused("its header has members that this node cannot accept")
        if not isinstance(kid, str) or len(kid) > KID_CHARACTERS_MAX:
            raise TokenRefused(
                f"its kid must be a string of at most {KID_CHARACTERS_MAX} characters"
            )
        if kind.lower() not in _TYPES:
            raise TokenRefused("it is of a type for other purposes")
        for key in self._candidates(algorithm, kid):
            try:
                found = self._signatures.decode_complete(token, key, algorithms=[algorithm])
            except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, RecursionError):
                continue
            payload: bytes = found["payload"]
            return payload
        raise TokenRefused("its signature is wrong")

    def _candidates(self, algorithm: str, kid: str) -> Sequence[Any]:
        """Return the keys that may have signed a token; the algorithm decides between the kinds."""
        if algorithm in HMAC_ALGORITHMS and self._secrets:
            return self._secrets
        if algorithm not in KEY_ALGORITHMS or (algorithm in HMAC_ALGORITHMS):
            raise TokenRefused("it is signed with an algorithm that this node does not accept")
        key = self.keys.find(kid, algorithm)
        if key is None:
            raise KeyUnknown("it is signed with a key that this node does not know")
        return [key.key]


def _read_header(token: bytes) -> dict[str, Any]:
    """Return the header of a token, which nobody has checked yet.

    PyJWT reads the token again when it checks the signature, and is stricter. Its own function for
    the header decodes all three parts, which costs as much as the check of an HMAC.
    """
    part = token.partition(b".")[0]
    try:
        header = msgspec.json.decode(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise TokenRefused("it cannot be read") from None
    if not isinstance(header, dict):
        raise TokenRefused("it cannot be read")
    return header
