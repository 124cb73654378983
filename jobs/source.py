"""What a kind of background work must offer: its functions, and what of it is due now.

What is to be done stands in our own Redis keys, and arq only does it: its queue may be lost, and
what was on it is found due again. So every function may run twice, and at the same time, and has to
find out by itself whether it is still wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from arq.worker import Function


class Job(NamedTuple):
    """One call of a function.

    Attributes:
        function: its name.
        args: what JSON can carry.
        id: while a job of this id waits or runs, it is not put on the queue again. A process that
            dies leaves its job's id taken for that job's timeout and ten seconds: what has to go on
            sooner needs an id of its own for each time.
    """

    function: str
    args: tuple[Any, ...]
    id: str


class Source(Protocol):
    """One kind of background work."""

    functions: Sequence[Function]

    async def due(self) -> list[Job]:
        """Return what should run now. Asked about once a second, by every jobs process.

        Raises:
            Unavailable: it is asked again.
        """
        ...
