"""The errors of this package. `retryable` says whether the same call may succeed later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TailraceError(Exception):
    """A request that could not be served, or a reading that could not go on.

    Attributes:
        code: a code of docs/protocol.md, or one of this package: `connection` (no answer, or no
            answer of a Tailrace node), `stalled`, `gave_up`, `usage`, `reset`.
        retryable: the same call may succeed later.
        status: the HTTP status, when a server has answered.
        retry_after_s: seconds to wait, when the server has named them; else 0.
        members: all members of the server's error, for example `next_seq`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retryable: bool,
        status: int | None = None,
        retry_after_s: float = 0.0,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = retryable
        self.status = status
        self.retry_after_s = retry_after_s
        self.members: Mapping[str, Any] = members or {}


class ForeignAnswer(TailraceError):
    """Another program than a Tailrace node has answered: a proxy, or another server.

    Its code is `connection`, because the answer says nothing about the request.
    """

    def __init__(
        self,
        why: str,
        *,
        retryable: bool = True,
        status: int | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        message = f"no Tailrace node answered: {why}"
        super().__init__(
            "connection", message, retryable=retryable, status=status, retry_after_s=retry_after_s
        )


def broken(message: str) -> TailraceError:
    """Return the error of a broken connection: the client comes back with its cursor."""
    return TailraceError("connection", message, retryable=True)


def said(exc: BaseException) -> str:
    """Return what an exception says, or its name."""
    return str(exc) or type(exc).__name__


def usage(message: str) -> TailraceError:
    """Return the error of a call that this package refuses."""
    return TailraceError("usage", message, retryable=False)


def reset_error() -> TailraceError:
    """Return the error for a text that begins anew after a part of it was shown."""
    message = (
        "the answer begins anew, and a part of it was shown: pass on_reset, or read the events"
    )
    return TailraceError("reset", message, retryable=True)
