"""Keeps the texts of files in Redis, by the digest of owner and content.

A chat sends its files again with each turn, and a takeover reads them again. No owner gets a text
of another one. A text that Redis does not take, or does not give in time, is read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Sequence

import msgspec

from shared.errors import Unavailable
from shared.redis import keys
from shared.redis.client import Client, translated

VERSION = 1  # of the texts: a change of the program makes other texts
TEXTS_OF_OWNER_MAX = 64
TEXT_BYTES_MAX = 1_048_576  # compressed; a longer text is not kept
_decode = msgspec.json.Decoder(list[str]).decode


class TextCache:
    """The kept texts. Args: kept_s: how long, s; 0: nothing is kept."""

    def __init__(self, redis: Client, kept_s: float) -> None:
        self._redis = redis
        self._kept_ms = round(kept_s * 1000)

    async def find(self, owner: str, digest: str) -> list[str] | None:
        """Return the pages of a file; None: not kept, or Redis is away."""
        if not self._kept_ms:
            return None
        try:
            with translated():
                found = await self._redis.get(keys.document(owner, digest))
        except Unavailable:
            return None
        return None if found is None else await asyncio.to_thread(_unpacked, found)

    async def keep(self, owner: str, digest: str, pages: Sequence[str]) -> None:
        """Keep the pages of a file; the oldest texts of an owner with very many leave."""
        if not self._kept_ms:
            return
        packed = await asyncio.to_thread(_packed, pages)
        if len(packed) > TEXT_BYTES_MAX:
            return
        key, index = keys.document(owner, digest), keys.documents(owner)
        try:
            with translated():
                seconds, micros = await self._redis.time()
                now_ms = int(seconds) * 1000 + int(micros) // 1000
                pipeline = self._redis.pipeline(transaction=False)
                pipeline.zadd(index, {digest: now_ms + self._kept_ms})
                pipeline.zremrangebyscore(index, "-inf", now_ms)
                pipeline.pexpire(index, self._kept_ms)
                pipeline.set(key, packed, px=self._kept_ms)
                pipeline.zrange(index, 0, -TEXTS_OF_OWNER_MAX - 1)
                *_, surplus = await pipeline.execute()
                if surplus:
                    pipeline = self._redis.pipeline(transaction=False)
                    for old in surplus:
                        pipeline.unlink(keys.document(owner, old.decode()))
                    pipeline.zrem(index, *surplus)
                    await pipeline.execute()
        except Unavailable:
            return


def text_digest_of(kind: str, data: str | bytes, ocr: str) -> str:
    """Return the digest of a file and of how it is read. Takes 1 ms for each 2 MB."""
    digest = hashlib.sha256(f"{VERSION} {kind} {ocr} {type(data).__name__}\0".encode())
    digest.update(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _packed(pages: Sequence[str]) -> bytes:
    return zlib.compress(msgspec.json.encode(pages), 1)


def _unpacked(raw: bytes) -> list[str] | None:
    try:
        return _decode(zlib.decompress(raw))
    except (zlib.error, msgspec.MsgspecError):
        return None  # of another version
