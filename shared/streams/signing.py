"""The signature of webhooks of subscriptions: Ed25519, with one key for all nodes.

The private key is in Redis, where the secrets of other webhooks are, too. Receivers read the public
key as a JSON web key set. Source: the Durable Streams protocol, reference server 0.3.7.
"""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.redis import stream_keys
from shared.redis.client import Client, translated


class Signer:
    """Signs the bodies of webhooks."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        named = {"crv": "Ed25519", "kty": "OKP", "x": _encoded(public)}
        thumbprint = json.dumps(named, separators=(",", ":"), sort_keys=True).encode()
        self.key_id = "ds_" + _encoded(hashlib.sha256(thumbprint).digest())
        self.jwk = {**named, "kid": self.key_id, "use": "sig", "alg": "EdDSA"}

    def sign(self, body: bytes, now_s: int) -> str:
        """Return the header `Webhook-Signature`."""
        signature = self._key.sign(b"%d.%b" % (now_s, body))
        return f"t={now_s},kid={self.key_id},ed25519={_encoded(signature)}"


async def load_signer(redis: Client) -> Signer:
    """Return the signer of this deployment; the first caller makes its key.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    with translated():
        await redis.set(
            stream_keys.SIGNING, Ed25519PrivateKey.generate().private_bytes_raw(), nx=True
        )
        private = await redis.get(stream_keys.SIGNING)
    assert isinstance(private, bytes)
    return Signer(private)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
