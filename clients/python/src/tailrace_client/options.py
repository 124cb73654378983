"""The options of a client, checked once."""

from __future__ import annotations

import math
import random as random_module
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tailrace_client.errors import TailraceError, usage
from tailrace_client.pace import AUTO, NAMES, BackOff, Heartbeat, Picker
from tailrace_client.wire import base_of

OPEN_TIMEOUT_S = 8.0
GIVE_UP_S = 600.0
FULL_S = 30.0  # a server that has no room for a request is asked again for so long
OnRetry = Callable[[TailraceError], object]


@dataclass(slots=True)
class Shared:
    """The options that all answers of one client share.

    Attributes:
        open_s: the longest wait for the head of an answer, or for an open socket.
        give_up_s: without any connection for this long, the client gives up.
        random: returns a number from 0 to below 1, for the jitter.
        now: returns seconds, of any clock that does not go back.
        on_retry: gets each error after which the client waits and tries again; may raise.
        is_near: the server is on this machine, so no proxy of the environment leads to it.
    """

    base: str
    picker: Picker
    heartbeat: Heartbeat
    is_auto: bool
    open_s: float
    give_up_s: float
    random: Callable[[], float]
    now: Callable[[], float]
    on_retry: OnRetry
    is_near: bool

    def pause_s(self, back_off: BackOff, error: TailraceError, full_s: float = FULL_S) -> float:
        """Return the pause before a request that met this error is repeated.

        Args:
            full_s: for so long a server is asked that has no room for the request.

        Raises:
            TailraceError: `error`, which no repetition helps, or which lasts too long.
        """
        is_full = error.status == 429 or error.code == "queue_full"
        patience_s = min(full_s if is_full else math.inf, self.give_up_s)
        pause_s = back_off.next(self.now(), error.retry_after_s)
        if not error.retryable or back_off.outage_s(self.now()) > patience_s:
            raise error
        self.on_retry(error)
        return pause_s

    def reconnect_s(self, back_off: BackOff, error: TailraceError) -> float:
        """Return the pause before the next connection of a reader.

        Raises:
            TailraceError: `gave_up`.
        """
        pause_s = back_off.next(self.now(), error.retry_after_s)
        if back_off.outage_s(self.now()) > self.give_up_s:
            message = f"no connection for {self.give_up_s:g} s; the last error: {error}"
            raise TailraceError("gave_up", message, retryable=True) from error
        self.on_retry(error)
        return pause_s


def shared_options(
    url: str,
    transport: str,
    *,
    open_timeout_s: float = OPEN_TIMEOUT_S,
    give_up_s: float = GIVE_UP_S,
    random: Callable[[], float] | None = None,
    clock: Callable[[], float] | None = None,
    on_retry: OnRetry | None = None,
) -> Shared:
    """Check the options of a client.

    Raises:
        TailraceError: `usage`.
    """
    if transport != "auto" and transport not in NAMES:
        raise usage(f"transport must be auto, {', '.join(NAMES)}, got {transport!r}")
    base = base_of(url)
    return Shared(
        base=base,
        picker=Picker(AUTO if transport == "auto" else (transport,)),
        heartbeat=Heartbeat(),
        is_auto=transport == "auto",
        open_s=open_timeout_s,
        give_up_s=give_up_s,
        random=random or random_module.random,
        now=clock or time.monotonic,
        on_retry=on_retry or (lambda error: None),
        is_near=is_near(base),
    )


def is_near(url: str) -> bool:
    """Return whether an address names this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def client_options(shared: Shared) -> dict[str, Any]:
    """Return the options of our own HTTP client. To load the certificates takes 20 ms or more."""
    return {"verify": shared.base.startswith("https"), "trust_env": not shared.is_near}
