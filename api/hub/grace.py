"""Reports to Redis which generations with a grace have readers on this node.

A generation with a grace is cancelled when no node has had a reader of it for `grace_s`. So a node
reports a generation before the first byte of its first reader, renews the report every `RENEW_S`,
and withdraws it when the last reader has left. The worker judges the time that has passed
(docs/architecture.md, "The write protocol").

Invariant: one call of Redis at a time for each relay (`Relay.grace_lock`), so that a withdrawal
never overtakes a report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api.hub.relay import Relay
from shared.errors import Unavailable
from shared.log.store import Store

RENEW_S = 3.0  # age of a report at which it is renewed
RENEW_EARLY_S = 0.5  # `renew` runs once a second: the third run renews, even if it is early


class GraceReporter:
    """The reports of one node.

    Args:
        node: this node's name in Redis.
        clock: loop time, s.
    """

    def __init__(self, store: Store, node: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._node = node
        self._clock = clock

    async def attach(self, relay: Relay) -> bool:
        """Report that this node has readers; False: the generation has ended.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        async with relay.grace_lock:
            if relay.is_attached:
                return True
            if await self._store.attach_readers(relay.generation_id, self._node):
                relay.is_attached, relay.attached_at = True, self._clock()
                return True
        return False

    async def detach(self, relay: Relay) -> None:
        """Withdraw the report, unless a reader has come meanwhile.

        Raises:
            Unavailable: Redis did not answer in time; the report expires there.
        """
        async with relay.grace_lock:
            if relay.is_attached and not relay.holds:
                relay.is_attached = False
                if not relay.is_over:
                    await self._store.detach_readers(relay.generation_id, self._node)

    async def renew(self, relays: Iterable[Relay]) -> None:
        """Renew the reports that are due.

        Raises:
            Unavailable: Redis did not answer in time about one of them; the others are renewed, as
                far as it answers: on a cluster they may be on other servers.
        """
        failure: Unavailable | None = None
        due_at = self._clock() - RENEW_S + RENEW_EARLY_S
        for relay in list(relays):
            if relay.is_attached and not relay.is_over and relay.attached_at <= due_at:
                async with relay.grace_lock:
                    if relay.is_attached and relay.holds:
                        relay.attached_at = self._clock()
                        try:
                            await self._store.attach_readers(relay.generation_id, self._node)
                        except Unavailable as exc:
                            failure = exc
        if failure is not None:
            raise failure
