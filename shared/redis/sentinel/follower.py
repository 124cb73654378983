"""The master of one service, for all connections of a process.

    find()    asks all sentinels, unless they were asked just now
    track()   takes note of a connection while it is being made
    admit()   lets it be used: its server says ROLE master, and nothing has switched meanwhile
    switch    a notice of a sentinel: all connections to the old master are dropped at once

Which server is the master is a fact of the surroundings, so all connections of a process must agree
about it. Hence there is one follower for each event loop and service, which `follower_of` returns.
Invariant: after a notice no connection to the old master stays open, and none is admitted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import RedisUrl, Sentinels
from shared.redis.sentinel.record import MasterRecord, View
from shared.redis.sentinel.session import SentinelFault, open_session, read_view
from shared.redis.wire import tls_context
from shared.text.addresses import format_authority

log = logging.getLogger(__name__)

ASK_S = 1.0  # for the first answer of any sentinel
ASK_OTHERS_S = 0.1  # for the others, after the first answer: a frozen sentinel never answers
ANSWER_FRESH_S = 0.2  # connections that are made together share one question


class Droppable(Protocol):
    """A connection that can be closed without waiting."""

    def abort(self) -> None: ...


class MasterLost(OSError):
    """The server is not the master, or is not the master any more."""


class Follower:
    """Finds the master, and drops connections to a former one.

    Attributes:
        sentinels: as in the URL.
        heard: sentinels whose notices arrive (watch.py).
        switches: how often the master has changed.
    """

    def __init__(self, url: RedisUrl) -> None:
        assert url.sentinels is not None
        self.sentinels: Sentinels = url.sentinels
        self.tls = tls_context(url)
        self.heard: set[HostPort] = set()
        self.switches = 0
        self._record = MasterRecord()
        self._last: HostPort | None = None
        self._asked_at_s = float("-inf")
        self._asking = asyncio.Lock()
        self._connections: WeakKeyDictionary[Droppable, HostPort] = WeakKeyDictionary()
        self._attempts: set[asyncio.Timeout] = set()
        self._switched = asyncio.Event()

    @property
    def master(self) -> HostPort | None:
        """The master; None: it has to be asked for."""
        return self._record.master

    async def find(self) -> HostPort:
        """Return the master of now.

        Raises:
            OSError: no sentinel answered, or the sentinels have not agreed on a new master yet.
        """
        async with self._asking:
            age_s = asyncio.get_running_loop().time() - self._asked_at_s
            if self.master is not None and age_s < ANSWER_FRESH_S:
                return self.master
            views, faults = await self.ask()
            return self._take(views, faults)

    def _take(self, views: Sequence[View], faults: Sequence[SentinelFault]) -> HostPort:
        now = asyncio.get_running_loop().time()
        master = self._record.choose(views, now)
        if master is None:
            what = "no sentinel answers" if not views else "the sentinels name no new master yet"
            raise MasterLost("; ".join([what, *map(str, faults)]))
        self._asked_at_s = now
        if any(address != master for address in self._connections.values()):
            self._drop(lambda address: address != master)
        if self._last not in (None, master):
            extra = {"service": self.sentinels.service, "master": format_authority(*master)}
            log.warning("redis switched", extra=extra | {"epoch": self._record.epoch})
        self._last = master
        return master

    async def ask(self) -> tuple[list[View], list[SentinelFault]]:
        """Ask all sentinels at once, and return what they say, and why others said nothing.

        Returns `ASK_OTHERS_S` after the first answer, and after `ASK_S` at the latest.
        """
        async with asyncio.TaskGroup() as group:
            tasks = {group.create_task(self._ask_one(host)) for host in self.sentinels.hosts}
            waiting = tasks
            until_s = asyncio.get_running_loop().time() + ASK_S
            while waiting and (left_s := until_s - asyncio.get_running_loop().time()) > 0:
                done, waiting = await asyncio.wait(
                    waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                if any(isinstance(task.result(), View) for task in done):
                    break
            if waiting:
                _, waiting = await asyncio.wait(waiting, timeout=ASK_OTHERS_S)
            for task in waiting:
                task.cancel()
        said = [task.result() for task in tasks if not task.cancelled()]
        return (
            [view for view in said if isinstance(view, View)],
            [fault for fault in said if isinstance(fault, SentinelFault)],
        )

    async def _ask_one(self, host: HostPort) -> View | SentinelFault:
        try:
            async with open_session(host, self.sentinels, self.tls) as session:
                return await read_view(session, host, self.sentinels.service)
        except (OSError, UnicodeError) as exc:  # UnicodeError: no host can have this name
            is_misconfigured = isinstance(exc, SentinelFault) and exc.is_misconfigured
            text = f"sentinel {format_authority(*host)}: {exc or type(exc).__name__}"
            return SentinelFault(text, is_misconfigured=is_misconfigured)

    # Connections

    def track(self, connection: Droppable, address: HostPort) -> None:
        """Drop `connection` when `address` is not the master any more.

        Raises:
            MasterLost: it is not the master already.
        """
        if address != self.master:
            raise MasterLost(f"{format_authority(*address)} is not the master any more")
        self._connections[connection] = address

    def admit(self, connection: Droppable, role: Any) -> None:
        """Check the reply of ROLE on a connection that is tracked.

        Raises:
            MasterLost: the server is not the master; the connection must be closed.
        """
        address = self._connections.get(connection)
        if address is None or address != self.master:
            raise MasterLost("the master has changed meanwhile")
        if not isinstance(role, list) or not role or role[0] != b"master":
            self.distrust()
            raise MasterLost(f"{format_authority(*address)} is a replica and not the master")

    def distrust(self) -> None:
        """Ask again before the next connection: a server refused to write, or was lost."""
        self._asked_at_s = float("-inf")

    def note_switch(self, old: HostPort) -> None:
        """Take a sentinel's notice that `old` is the master no more."""
        self.distrust()
        if self._record.note_switch(old, asyncio.get_running_loop().time()):
            self._drop(lambda address: address == old)

    def _drop(self, is_former: Callable[[HostPort], bool]) -> None:
        self.switches += 1
        for connection, address in list(self._connections.items()):
            if is_former(address):
                del self._connections[connection]
                connection.abort()
        loop = asyncio.get_running_loop()
        attempts, self._attempts = self._attempts, set()
        for attempt in attempts:
            attempt.reschedule(loop.time())
        self._switched.set()
        self._switched = asyncio.Event()

    @contextmanager
    def attempt(self) -> Iterator[asyncio.Timeout]:
        """Yield a timeout for one connection, without a deadline; the next switch ends it."""
        timeout = asyncio.timeout(None)
        self._attempts.add(timeout)
        try:
            yield timeout
        finally:
            self._attempts.discard(timeout)

    async def pause(self, pause_s: float) -> None:
        """Return after `pause_s`, or at the next switch."""
        try:
            async with asyncio.timeout(pause_s):
                await self._switched.wait()
        except TimeoutError:
            pass


_Key = tuple[Sentinels, bool]
_followers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Key, Follower]] = WeakKeyDictionary()


def follower_of(url: RedisUrl) -> Follower:
    """Return the follower of this URL's service on the running event loop.

    Raises:
        ConfigurationError: a file for TLS cannot be used.
    """
    assert url.sentinels is not None
    known = _followers.setdefault(asyncio.get_running_loop(), {})
    key = (url.sentinels, url.is_tls)
    if key not in known:
        known[key] = Follower(url)
    return known[key]
