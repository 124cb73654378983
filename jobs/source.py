"""The protocol of a kind of background work: its functions, and its due jobs.

Our own Redis keys hold the work, and arq only runs it. If arq's queue is lost, the work is found
due again. So every function may run twice, also at the same time, and must check whether its work
is still to be done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from arq.worker import Function


class Job(NamedTuple):
    """One call of a function.

    Attributes:
        function: the name of the function.
        args: JSON values.
        id: while a job with this id waits or runs, it is not queued again. If a process dies, arq
            reserves the id for the timeout of the job and ten seconds more. A job that must be
            repeated sooner needs a new id each time.
    """

    function: str
    args: tuple[Any, ...]
    id: str


class Source(Protocol):
    """One kind of background work."""

    functions: Sequence[Function]

    async def due(self) -> list[Job]:
        """Return the jobs to run now. Every jobs process calls this about once a second.

        Raises:
            Unavailable: Redis did not answer in time; the caller asks again.
        """
        ...
