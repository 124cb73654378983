"""Repeated failures of one address are answered later and later.

Who guesses keys is told 401 after a pause, and who asks with a wrong key in a loop costs less. A
pause is only before a refusal: a request whose key is good is answered at once, whatever others at
its address did. So this does not stop a guesser who opens many connections; the length of the keys
does (docs/security.md).

`Failures` decides without I/O; `Slowing` waits. Invariants: at most `ADDRESSES_MAX` addresses are
remembered, and at most `WAITING_MAX` answers wait at once on a node: further ones leave at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from starlette.types import Scope

from api.transport.peer import Peers

FREE = 10  # failures of one address in `WINDOW_S` that cost nothing
WINDOW_S = 60.0
FIRST_S = 0.1  # the pause of the next one; each further one doubles it
LONGEST_S = 2.0
ADDRESSES_MAX = 4_096
WAITING_MAX = 64

_MOST = FREE + 8  # failures that are counted: so long a break makes up for any number


class Failures:
    """How many failures each address had lately: a bucket that leaks `FREE` in `WINDOW_S`."""

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, when, s

    def __len__(self) -> int:
        return len(self._levels)

    def pause_s(self, address: str, now_s: float) -> float:
        """Count one more failure of `address`; return how long its answer has to wait, s."""
        level, since_s = self._levels.pop(address, (0.0, now_s))
        level = max(0.0, level - (now_s - since_s) * FREE / WINDOW_S) + 1
        self._levels[address] = (min(level, _MOST), now_s)
        if len(self._levels) > ADDRESSES_MAX:
            self._levels.popitem(last=False)
        excess = int(level) - FREE
        return min(FIRST_S * 2 ** (excess - 1), LONGEST_S) if excess > 0 else 0.0


class Slowing:
    """Holds back the refusals of one node."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._failures = Failures()
        self._waiting = 0

    async def hold_back(self, scope: Scope) -> None:
        """Wait before the request of `scope` is told that its credentials are no good."""
        client = scope.get("client")
        address = self._peers.origin(client[0] if client else None, scope["headers"])
        pause_s = self._failures.pause_s(address, asyncio.get_running_loop().time())
        if not pause_s or self._waiting >= WAITING_MAX:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(pause_s)
        finally:
            self._waiting -= 1
