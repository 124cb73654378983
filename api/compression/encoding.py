"""What an encoding of streams has to offer: pieces, contexts, and the frame of a body.

A body is `opening`, any number of pieces, and the closing. Each piece is complete: a decoder that
has a piece gives out all bytes of the piece, so no token waits in a compressor or a decoder.

    fresh piece     refers to nothing before it, so it may follow any piece of any body
    piece of a      refers to earlier bytes of its context, so it may follow only in a body whose
    context         latest bytes are those of the context

A key frame is the first piece of a context after its start or a restart: it refers to nothing
before it. Knows no log, no reader and no HTTP.
"""

from __future__ import annotations

from typing import Protocol

# A longer string is put into a shared piece without compression, so that one call takes at most
# about 10 ms. A slice of a log is shorter (api/hub/encoded.py), unless it has one very long entry.
COMPRESSED_BYTES_MAX = 262_144
FRESH_BYTES_MIN = 256  # a shorter string alone saves less than the set-up of a compressor costs


class Context(Protocol):
    """A compressor that remembers what it has compressed."""

    def piece(self, plain: bytes) -> bytes:
        """Return the piece of the next bytes.

        Args:
            plain: at least one byte.
        """
        ...

    def closing(self, crc: int, count: int) -> bytes:
        """Return the bytes that complete a body of which all pieces are of this context.

        Args:
            crc: CRC-32 of all plain bytes.
            count: number of plain bytes.
        """
        ...


class SharedContext(Context, Protocol):
    """A context whose pieces serve several readers.

    Attributes:
        bytes_kept: memory, bytes, approximately.
    """

    bytes_kept: int

    def restart(self) -> None:
        """Make the next piece a key frame."""
        ...


class Encoding(Protocol):
    """One encoding, on one node.

    Attributes:
        name: in `Accept-Encoding` and `Content-Encoding`.
        opening: the first bytes of each body.
    """

    name: str
    opening: bytes

    def context(self) -> Context:
        """Return a new context."""
        ...


class SharedEncoding(Encoding, Protocol):
    """An encoding in which readers of one log can share the pieces.

    Attributes:
        window: a piece of a context refers at most so many plain bytes back, and nothing else joins
            it to earlier pieces.
    """

    window: int

    def context(self) -> SharedContext: ...

    def fresh(self, plain: bytes) -> bytes:
        """Return a fresh piece.

        Args:
            plain: at least one byte.
        """
        ...

    def closing(self, crc: int, count: int) -> bytes:
        """Return the bytes that complete any body; arguments as in `Context.closing`."""
        ...
