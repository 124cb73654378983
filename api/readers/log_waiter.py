"""A reader that is given nothing: it waits for its log to come to some state.

For what needs the log and not its bytes in time: an answer that is not streamed, the place of a
numbered chunk. It is never placed, so that nothing of the log is let go while it waits. Invariant:
its task is woken when what it waits for may be true, and not for every event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.hub.contracts import Outcome
from api.hub.position import Position
from api.hub.relay import Relay
from shared.log.ids import START


class Waiter:
    """One waiting. Use as a context manager.

    Attributes:
        outcome: why it was broken off; None: it was not.
    """

    def __init__(self, relay: Relay, now: float) -> None:
        self.position = Position(START, now)
        self.outcome: Outcome | None = None
        self._relay = relay
        self._condition: Callable[[], bool] = _always
        self._woken = asyncio.Event()

    def __enter__(self) -> Waiter:
        self._relay.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.leave(self)

    def wake(self) -> None:
        if self._condition():
            self._woken.set()

    def break_off(self, outcome: Outcome) -> None:
        if outcome is not Outcome.ROTATED:  # it has no place to come back to
            self.outcome = self.outcome or outcome
            self._woken.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds, or this was broken off."""
        self._condition = condition
        while self.outcome is None and not condition():
            self._woken.clear()
            await self._woken.wait()

    async def changed(self) -> None:
        """Return at the next change of the log, or when this was broken off."""
        self._condition = _always
        self._woken.clear()
        if self.outcome is None:
            await self._woken.wait()


def _always() -> bool:
    return True
