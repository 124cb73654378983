"""The keys that check the signatures of tokens, and the choice of the key for one token.

    alg           key                         source
    HS256 … 512   the shared secret           TAILRACE_JWT_SECRET
    RS…, PS…      RSA, 2,048 bits at least    TAILRACE_JWT_JWKS
    ES256 … 512   EC on the curve of the alg  TAILRACE_JWT_JWKS
    EdDSA         OKP, Ed25519                TAILRACE_JWT_JWKS

Invariant: a public key never checks an HMAC, and a secret checks nothing else, because a public key
is known to everybody (RFC 8725, 2.1). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

KEYS_MAX = 100  # of one set; further ones are an error
RSA_BITS_MIN = 2_048  # RFC 7518, 3.3
HMAC_ALGORITHMS = ("HS256", "HS384", "HS512")
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# The type and the curve of a key -> the algorithms that it may check.
_ALGORITHMS = {
    ("RSA", None): _RSA_ALGORITHMS,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
KEY_ALGORITHMS = tuple(name for names in _ALGORITHMS.values() for name in names)


class KeySetInvalid(Exception):
    """A text is no set of keys that this node can use; the message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key of a set: `kid` is "" where the set gives none."""

    kid: str
    algorithms: tuple[str, ...]
    key: Any  # of cryptography


class KeySet:
    """The public keys of an issuer."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        self.keys = tuple(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, kid: str, algorithm: str) -> PublicKey | None:
        """Return the key for a token; without a `kid` the only key that fits the algorithm."""
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid:
            fitting = [key for key in fitting if key.kid == kid]
            return fitting[0] if fitting else None
        return fitting[0] if len(fitting) == 1 else None


def read_key_set(text: bytes) -> KeySet:
    """Read a JSON Web Key Set (RFC 7517). Keys for other purposes or of other kinds are left out.

    Raises:
        KeySetInvalid: not a key set, or none of its keys can be used.
    """
    try:
        members = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise KeySetInvalid("it is not JSON") from None
    rows = members.get("keys") if isinstance(members, dict) else None
    if not isinstance(rows, list):
        raise KeySetInvalid('it is not a key set: an object with a list "keys"')
    if len(rows) > KEYS_MAX:
        raise KeySetInvalid(f"it has more than {KEYS_MAX} keys")
    keys = [key for row in rows if (key := _read_key(row)) is not None]
    if not keys:
        raise KeySetInvalid("it has no public key for RS, PS, ES or EdDSA signatures")
    return KeySet(keys)


def _read_key(row: Any) -> PublicKey | None:
    """Return the key of one row; None: it is of no use here."""
    if not isinstance(row, dict) or row.get("use", "sig") != "sig":
        return None
    kind, kid, own = row.get("kty"), row.get("kid", ""), row.get("alg")
    curve = None if kind == "RSA" else row.get("crv")
    if not isinstance(kind, str) or not isinstance(kid, str) or not isinstance(curve, str | None):
        return None
    algorithms = _ALGORITHMS.get((kind, curve), ())
    if own is not None:
        algorithms = tuple(name for name in algorithms if name == own)
    if not algorithms:
        return None
    public = {name: value for name, value in row.items() if name not in _PRIVATE_MEMBERS}
    try:
        key = PyJWK(public, algorithms[0]).key
    except (PyJWTError, UnsupportedAlgorithm, ArithmeticError, *_BAD_MEMBERS):
        return None
    if kind == "RSA" and key.key_size < RSA_BITS_MIN:
        return None
    return PublicKey(kid, algorithms, key)


_BAD_MEMBERS = (ValueError, TypeError, LookupError, AttributeError)  # PyJWT lets these pass
# Of RSA, EC and OKP keys. A private half in the set is not needed, and must not stay in memory.
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
