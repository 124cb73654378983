"""What a dialect is to the hub: a fold that turns entries into bytes, and a name to share it by.

Invariant: a fold's output depends on the log and on what was stored at creation, on nothing else.
So it runs once per generation, dialect and node, and every node gives the same bytes. It knows no
clock, no reader and no transport. A fold may keep state (numbers it has given); it is then made
anew, and fed from the first entry, whenever the log is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shared.ids import EventId
from shared.outcomes import Meta


class Fold(Protocol):
    """One generation in one dialect."""

    def add(self, event_id: EventId, raw: bytes) -> bytes:
        """Return the bytes for the next entry: none, one or several frames, complete ones.

        Args:
            event_id: where it stands; entries come in order, from the first.
            raw: its JSON, `type` first. Types that this version does not know are passed on.
        """
        ...

    def aside(self, raw: bytes) -> bytes | None:
        """Return the bytes for an event that is not in the log (id `0-0`): `reset`, or `end` lost.

        None: this dialect has no way to say it, and its readers are broken off instead.
        """
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect as the hub knows it.

    Attributes:
        name: readers with the same name share one encoded log.
        new_fold: starts the fold of one generation.
        heartbeat: bytes for a reader that was sent nothing; empty: the transport has its own.
    """

    name: str
    new_fold: Callable[[Meta], Fold]
    heartbeat: bytes = b""
