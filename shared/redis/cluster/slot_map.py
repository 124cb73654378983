"""Which master has which slot, as far as this process knows. Pure.

The map becomes wrong when a slot moves or a replica is promoted. If a call goes to a server that
does not have the slot, the server answers with the right address, which `note_moved` records at
once. Then the whole map is read again, once for all callers that met the same error: each reading
raises `version`, and a caller that saw an older version need not read again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shared.config.redis_hosts import HostPort
from shared.redis.cluster.slots import SLOTS


class SlotMap:
    """The map of one cluster.

    Attributes:
        version: rises with each reading of the whole map; 0: it was never read.
        changes: rises whenever a slot gets another master.
        is_stale: a server has contradicted the map since it was read.
        is_whole: each slot had a master when the map was read.
        lost: masters that could not be reached since then; others may have their slots.
        avoided: servers that could not be reached and have not answered since.
    """

    def __init__(self) -> None:
        self.version = 0
        self.changes = 0
        self.is_stale = True
        self.is_whole = False
        self.lost: set[HostPort] = set()
        self.avoided: set[HostPort] = set()
        self._masters: list[HostPort | None] = [None] * SLOTS
        self._sorted: tuple[int, list[HostPort]] = (0, [])  # as of this number of changes

    @property
    def masters(self) -> list[HostPort]:
        """Every master that has a slot, in a stable order."""
        if self._sorted[0] != self.changes:
            found = sorted({master for master in self._masters if master is not None})
            self._sorted = self.changes, found
        return self._sorted[1]

    @property
    def slots_without(self) -> int:
        """The number of slots that have no master."""
        return self._masters.count(None)

    def master_of(self, slot: int | None) -> HostPort | None:
        """Return the master of a slot, or any master for None; None: it is not known."""
        if slot is not None:
            return self._masters[slot]
        masters = sorted(self.masters, key=lambda each: each in self.avoided)
        return next(iter(masters), None)

    def read(self, reply: Any, asked: HostPort) -> None:
        """Take the reply of CLUSTER SLOTS.

            [[first slot, last slot, [host, port, id, …], [replica …] …] …]

        Args:
            asked: the server that answered. An empty host in the reply means this server's.

        Raises:
            ValueError: the reply has another form or names no master; the map is as before. A
                server that left the cluster, or has not joined it yet, knows no master.
        """
        if reply == []:
            raise ValueError("CLUSTER SLOTS names no master")
        masters: list[HostPort | None] = [None] * SLOTS
        try:
            for first, last, (host, port, *_), *_ in reply:
                name = host.decode() if host else asked[0]
                if not 0 <= first <= last < SLOTS:
                    raise ValueError("slots beyond the last one")
                masters[first : last + 1] = [(name, int(port))] * (last - first + 1)
        except (TypeError, AttributeError, ValueError) as exc:
            raise ValueError(f"CLUSTER SLOTS has another form: {exc}") from exc
        if masters != self._masters:
            self.changes += 1
        self._masters = masters
        self.version += 1
        self.is_stale = False
        self.is_whole = None not in masters
        self.lost.clear()

    def note_moved(self, slot: int, master: HostPort) -> None:
        """Record a server's word that `master` has the slot now."""
        if self._masters[slot] != master:
            self._masters[slot] = master
            self.changes += 1
            self.is_stale = True

    def note_refusal(self) -> None:
        """Record that a server said that the cluster, or its own shard, is not whole."""
        self.is_stale = True

    def note_lost(self, master: HostPort) -> None:
        """Record that a master could not be reached."""
        self.lost.add(master)
        self.avoided.add(master)

    def note_answer(self, server: HostPort) -> None:
        """Record that a server has answered."""
        self.avoided.discard(server)

    def is_doubtful(self, slots: Iterable[int | None]) -> bool:
        """Whether this map may name a wrong master for one of these slots, or none.

        So it is if the map was never read, if a slot has no master, or if its master was lost. Then
        another map may name the right one.
        """
        if not self.version:
            return True
        if self.is_whole and not self.lost:  # nearly always
            return False
        masters = [self.master_of(slot) for slot in slots]
        return any(master is None or master in self.lost for master in masters)
