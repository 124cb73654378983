"""Makes tokens, good and bad: with PyJWT, and by hand for those that PyJWT would not make."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

SECRET = "secret-of-the-tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789"
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


@cache
def private_key(algorithm: str, number: int = 0, *, bits: int = 2_048) -> Any:
    """Return one key of a kind: the same call gives the same key."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def family(algorithm: str) -> str:
    """Return the algorithm whose key also serves this one."""
    return "RS256" if algorithm[:2] in ("RS", "PS") else algorithm


def public_pem(key: Any) -> bytes:
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def jwk(algorithm: str, kid: str | None = None, number: int = 0, **members: Any) -> dict[str, Any]:
    """Return the public half of a key as a row of a key set."""
    key = private_key(family(algorithm), number)
    row = json.loads(get_default_algorithms()[algorithm].to_jwk(key.public_key()))
    row.pop("key_ops", None)
    return {**row, **({"kid": kid} if kid is not None else {}), **members}


def claims(**members: Any) -> dict[str, Any]:
    """Return the claims of alice for an hour; None leaves a claim out."""
    all_members = {"sub": "alice", "exp": int(time.time()) + 3_600, **members}
    return {name: value for name, value in all_members.items() if value is not None}


def hmac_token(secret: str = SECRET, algorithm: str = "HS256", **members: Any) -> str:
    return jwt.encode(claims(**members), secret, algorithm)


def signed_token(algorithm: str, kid: str | None = "k1", number: int = 0, **members: Any) -> str:
    """Return a token that a private key has signed."""
    key = private_key(family(algorithm), number)
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(claims(**members), key, algorithm, headers=headers)


def part(value: Any) -> str:
    """Return one part of a token: base64url of JSON, or of bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hand_made(header: Any, payload: Any, secret: bytes | None = SECRET.encode()) -> str:
    """Return a token of any header and payload, with a good HS256 signature; None: without one."""
    text = f"{part(header)}.{part(payload)}"
    if secret is None:
        return f"{text}."
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"
