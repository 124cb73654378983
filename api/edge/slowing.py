"""Delays the refusals after repeated authentication failures of one address.

A guesser of keys gets each 401 after a pause, and a client with a wrong key in a loop costs less. A
pause comes only before a refusal: a request with a good key is answered at once, whatever other
clients at its address did. So this does not stop a guesser with many connections; the length of the
keys does (docs/security.md).

`FailureCounter` decides without I/O; `FailureDelay` waits. Invariants: at most
`ADDRESSES_MAX` addresses are remembered, and at most `DELAYED_MAX` answers of a node are delayed at
once: further answers are sent at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from starlette.types import Scope

from api.transport.peer import TrustedProxies

FREE_FAILURES = 10  # failures of one address in `FREE_FAILURES_WINDOW_S` without a delay
FREE_FAILURES_WINDOW_S = 60.0
FIRST_DELAY_S = 0.1  # after the free failures; each further failure doubles the delay
DELAY_S_MAX = 2.0
ADDRESSES_MAX = 4_096
DELAYED_MAX = 64

# The level does not rise further, so the longest recovery time has a limit.
_LEVEL_MAX = FREE_FAILURES + 8


class FailureCounter:
    """Recent failures of each address.

    A leaky bucket: each failure adds 1, and `FREE_FAILURES` leak out in `FREE_FAILURES_WINDOW_S`.
    """

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, time in s

    def __len__(self) -> int:
        return len(self._levels)

    def add(self, address: str, now_s: float) -> float:
        """Count a failure of `address`; return the delay of its answer, s; 0: no delay."""
        level, since_s = self._levels.pop(address, (0.0, now_s))
        leaked = (now_s - since_s) * FREE_FAILURES / FREE_FAILURES_WINDOW_S
        level = max(0.0, level - leaked) + 1
        self._levels[address] = (min(level, _LEVEL_MAX), now_s)
        if len(self._levels) > ADDRESSES_MAX:
            self._levels.popitem(last=False)
        excess = int(level) - FREE_FAILURES
        return min(FIRST_DELAY_S * 2 ** (excess - 1), DELAY_S_MAX) if excess > 0 else 0.0


class FailureDelay:
    """Delays the refusals of one node."""

    def __init__(self, peers: TrustedProxies) -> None:
        self._peers = peers
        self._failures = FailureCounter()
        self._delayed = 0

    async def hold_back(self, scope: Scope) -> None:
        """Count a failure of the request's client address, and wait for its delay."""
        client = scope.get("client")
        address = self._peers.client_address(client[0] if client else None, scope["headers"])
        delay_s = self._failures.add(address, asyncio.get_running_loop().time())
        if not delay_s or self._delayed >= DELAYED_MAX:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._delayed -= 1
