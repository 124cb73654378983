"""The options of a client, checked once."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tailrace_client.errors import TailraceError, usage
from tailrace_client.pace import AUTO, NAMES, BackOff, Heartbeat, Picker
from tailrace_client.wire import base_of

OPEN_TIMEOUT_S = 8.0
GIVE_UP_S = 600.0
FULL_S = 30.0  # a server that has no room for a request is asked again for so long


@dataclass(slots=True)
class Shared:
    """The options that all answers of one client share.

    Attributes:
        open_s: the longest wait for the head of an answer, or for an open socket.
        give_up_s: without any connection for this long, the client gives up.
        random: returns a number from 0 to below 1, for the jitter.
        now: returns seconds, of any clock that does not go back.
    """

    base: str
    picker: Picker
    heartbeat: Heartbeat
    is_auto: bool
    open_s: float
    give_up_s: float
    random: Callable[[], float]
    now: Callable[[], float]

    def patience_s(self, error: TailraceError) -> float:
        """Return for how long a request that met this error is repeated."""
        is_full = error.status == 429 or error.code == "queue_full"
        return min(FULL_S, self.give_up_s) if is_full else self.give_up_s

    def pause_s(self, back_off: BackOff, error: TailraceError) -> float:
        """Return the pause before a request that met this error is repeated.

        Raises:
            TailraceError: `error`, which no repetition helps, or which lasts too long.
        """
        pause_s = back_off.next(self.now(), error.retry_after_s)
        if not error.retryable or back_off.outage_s(self.now()) > self.patience_s(error):
            raise error
        return pause_s


def shared_options(
    url: str,
    transport: str,
    *,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    give_up_s: float = GIVE_UP_S,
    random: Callable[[], float] | None = None,
    clock: Callable[[], float] | None = None,
) -> Shared:
    """Check the options of a client.

    Raises:
        TailraceError: `usage`.
    """
    if transport != "auto" and transport not in NAMES:
        raise usage(f"transport must be auto, {', '.join(NAMES)}, got {transport!r}")
    return Shared(
        base=base_of(url),
        picker=Picker(AUTO if transport == "auto" else (transport,)),
        heartbeat=Heartbeat(),
        is_auto=transport == "auto",
        open_s=open_timeout_s,
        give_up_s=give_up_s,
        random=random or random_module.random,
        now=clock or time.monotonic,
    )


def client_options(shared: Shared) -> dict[str, Any]:
    """Return the options of our own HTTP client. To load the certificates takes 20 ms or more."""
    return {"verify": shared.base.startswith("https")}
