"""The interface of backends whose server makes an answer also while no worker is connected.

Such a backend yields `Upstream` as its first event. From then on the answer is paid for once: a
worker that takes over reads the same answer from its beginning, and writes only the events that the
log lacks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from shared.errors import BackendError
from workers.backends.contract import Backend, BackendItem


class AnswerGone(BackendError):
    """The server has this answer no more, or has ended it without success: ask again."""


@runtime_checkable
class BackgroundBackend(Backend, Protocol):
    """A backend whose server makes answers in the background."""

    def attach(self, upstream_id: str, *, seed: str) -> AsyncGenerator[list[BackendItem], None]:
        """Yield the events of an answer from its beginning, as `Backend.stream` does.

        Args:
            upstream_id: of the `Upstream` event.
            seed: the generation's id.

        Raises:
            AnswerGone: the answer cannot be read to a good end.
            BackendError: the attempt has failed, and another one may attach again.
        """
        ...

    async def cancel(self, upstream_id: str) -> None:
        """Stop the server's work on an answer. Failures are logged."""
        ...
