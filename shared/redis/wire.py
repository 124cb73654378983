"""The bytes and the TLS context that all connections to Redis and to sentinels share.

Source: redis.io/docs/reference/protocol-spec (RESP2).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from redis import exceptions
from redis.asyncio import SSLConnection

from shared.config.redis_url import RedisUrl
from shared.errors import ConfigurationError


def encode(words: Iterable[bytes]) -> bytes:
    """Return the bytes of one request."""
    parts = list(words)
    return b"*%d\r\n" % len(parts) + encode_words(parts)


def encode_words(words: Iterable[bytes]) -> bytes:
    """Return the words of a request without the leading word count."""
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def tls_context(url: RedisUrl) -> ssl.SSLContext | None:
    """Return the TLS context that redis-py makes of this URL, so that all trust the same.

    Raises:
        ConfigurationError: a file, a certificate or a cipher in the URL cannot be used.
    """
    if not url.is_tls:
        return None
    try:
        context: ssl.SSLContext = SSLConnection(**url.tls_options).ssl_context.get()
    except (OSError, ValueError, exceptions.RedisError) as exc:  # SSLError is an OSError
        names = ", ".join(sorted(url.tls_options))
        raise ConfigurationError(
            f"the options {names} of the Redis URL cannot be used: {exc}"
        ) from exc
    return context
