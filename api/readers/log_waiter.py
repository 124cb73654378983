"""A reader that receives no bytes: it waits until its log reaches some state.

An answer that is not streamed uses it, and the search for a numbered chunk. A waiter is never
placed, so the relay trims nothing while it waits. Invariant: an event wakes the waiting task only
if the condition that it waits for holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.errors import request_error
from api.hub.contracts import ReadingOutcome
from api.hub.position import Position
from api.hub.relay import Relay
from shared.errors import Draining, Expired
from shared.log.ids import START


class Waiter:
    """One reader that waits. Use it as a context manager: it joins the relay and leaves it.

    Args:
        now: the hub's time, s.

    Attributes:
        outcome: why the hub broke it off; None: it did not.
    """

    def __init__(self, relay: Relay, now: float) -> None:
        self.position = Position(START, now)
        self.outcome: ReadingOutcome | None = None
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

    def break_off(self, outcome: ReadingOutcome) -> None:
        if outcome is not ReadingOutcome.ROTATED:  # its client has no cursor to resume from
            self.outcome = self.outcome or outcome
            self._woken.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds or `outcome` is set."""
        self._condition = condition
        while self.outcome is None and not condition():
            self._woken.clear()
            await self._woken.wait()

    def check_not_broken_off(self) -> None:
        """Raise if the hub broke the waiter off.

        Raises:
            RequestError: `draining`: this node stops. `expired`: the log expired meanwhile.
                `request_timeout`: the client disconnected.
        """
        match self.outcome:
            case None:
                return
            case ReadingOutcome.LEFT:
                raise request_error(
                    "request_timeout", "the client left before its answer was complete"
                )
            case ReadingOutcome.DRAINED:
                raise Draining()
            case _:
                raise Expired()

    async def changed(self) -> None:
        """Return at the next change of the log, or once `outcome` is set."""
        self._condition = _always
        self._woken.clear()
        if self.outcome is None:
            await self._woken.wait()


def _always() -> bool:
    return True
