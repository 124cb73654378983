"""The interface of a protocol over gRPC: its call, its request, and a reader of its answers."""

from __future__ import annotations

from typing import Protocol

from shared.log.request import Request
from workers.backends.contract import BackendItem


class ProtocolReader(Protocol):
    """Reads one answer: messages in, items out. Does no I/O.

    Attributes:
        is_done: `Finish` was returned.
    """

    is_done: bool

    def feed(self, message: bytes) -> list[BackendItem]:
        """Return the items of one message.

        Raises:
            BackendError: the server reports an error, or the message is not of this protocol.
        """
        ...


class GrpcProtocol(Protocol):
    """A protocol.

    Attributes:
        method: the path of the call.
        is_two_way: the client's side is a stream, too; one message is sent on it.
    """

    @property
    def method(self) -> str: ...

    @property
    def is_two_way(self) -> bool: ...

    def encode(self, request: Request, prefix: str, seed: str) -> bytes:
        """Return the message that asks for an answer.

        Raises:
            BackendError: `upstream_refused`: this protocol cannot carry the request.
        """
        ...

    def reader(self, seed: str) -> ProtocolReader: ...
