"""One fault under several conversations: it strikes when each of them has heard its beginning.

    fault = SharedFault(deployment.api[0].kill)
    await fault.strikes(lobe_at_a_killed_node(fault), gateway_at_a_killed_node(fault))

A conversation starts an answer, awaits `fault.struck()`, and checks what it hears then. So several
clients share the wait for a lease and for the end of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.support.processes import Deployment


class SharedFault:
    """What breaks, once.

    Args:
        strike: breaks it.
    """

    def __init__(self, strike: Callable[[], None]) -> None:
        self._strike = strike
        self._barrier = asyncio.Barrier(1)

    async def strikes(self, *conversations: Coroutine[Any, Any, None]) -> None:
        """Run the conversations to their ends. Each must await `struck` once.

        Raises:
            ExceptionGroup: with the failures; the first of them ends the other conversations.
        """
        self._barrier = asyncio.Barrier(len(conversations))
        async with asyncio.TaskGroup() as group:
            for conversation in conversations:
                group.create_task(conversation)

    async def struck(self) -> None:
        """Return when all conversations wait here and the fault has struck."""
        if await self._barrier.wait() == 0:
            self._strike()


def death_of_worker(deployment: Deployment) -> SharedFault:
    """A fault that kills the worker of all answers which begin now.

    The other worker is dead until then, so that it begins none of them, and takes over all.
    """
    holder, other = deployment.workers
    other.kill()

    def strike() -> None:
        holder.kill()
        other.start()

    return SharedFault(strike)
