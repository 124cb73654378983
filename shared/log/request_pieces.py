"""A large request in Redis: a hash of pieces beside meta, written and read piece by piece.

Redis serves one call at a time. As one field of meta, a request of 32 MiB passes through the Lua
scripts and keeps every token of every generation waiting: 100 to 200 ms to create the generation,
and as long to begin it. A piece takes Redis 1 to 3 ms, and other calls run between two pieces.

Order: the pieces are written before meta names their number (field `pieces`), so a generation that
exists has its request. The hash expires by itself; the end of a generation lets it expire with
meta. A lost piece makes the request empty, never shorter.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Unavailable
from shared.redis import keys
from shared.redis.client import Command
from shared.redis.pipeline import Pipeline

PIECE_BYTES = 524_288  # a larger request is stored in pieces of this size
PIECES = b"pieces"  # the field of meta that holds their number


@dataclass(frozen=True, slots=True)
class Pieces:
    """A large request that is about to be stored.

    Attributes:
        kept_ms: until the hash expires if the end of the generation is never recorded.
    """

    generation_id: str
    request: bytes | bytearray
    kept_ms: int

    async def deposit(self, pipeline: Pipeline) -> None:
        """Write the pieces. Writing them again changes nothing.

        Raises:
            Unavailable: Redis did not answer in time, or refused.
        """
        key = keys.request(self.generation_id)
        for index in range(piece_count(self.request)):
            start = index * PIECE_BYTES
            piece = bytes(self.request[start : start + PIECE_BYTES])
            commands: list[Command] = [("HSET", key, index, piece), ("PEXPIRE", key, self.kept_ms)]
            for reply in await pipeline.run(commands):
                if isinstance(reply, Exception):
                    raise Unavailable(f"Redis refuses: {reply}") from reply


def piece_count(request: bytes | bytearray) -> int:
    """Return the number of pieces of a request; 0: it is a field of meta."""
    return 0 if len(request) <= PIECE_BYTES else -(-len(request) // PIECE_BYTES)


async def fetch(pipeline: Pipeline, generation_id: str, count: int) -> bytes:
    """Return the request that was stored in `count` pieces; b"": a piece is absent.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    key, pieces = keys.request(generation_id), []
    for index in range(count):
        (piece,) = await pipeline.run([("HGET", key, index)])
        if isinstance(piece, Exception):
            raise Unavailable(f"Redis refuses: {piece}") from piece
        if piece is None:
            return b""
        pieces.append(piece)
    return b"".join(pieces)
