"""The place of an HTTP reader among the open readers of its owner.

The request brings it, if its owner has a limit (`READER_PLACE` of api/transport/extensions.py).
Knows no Redis: api/edge/reader_places.py counts.
"""

from __future__ import annotations

from typing import Protocol

from starlette.types import Scope

from api.transport.extensions import READER_PLACE


class Place(Protocol):
    """As `ReaderPlace` of api/edge/reader_places.py."""

    async def take(self, reader: str = "") -> None:
        """Take the place, unless it is taken. Raises `TooManyConnections`."""
        ...

    def keep(self) -> None:
        """Keep the place when the handler returns."""
        ...

    def give_back(self) -> None: ...


async def take_place(scope: Scope, reader: str = "") -> Place | None:
    """Take the place of a request that will be answered from a log.

    The server gives it back when the handler returns, unless the caller calls `keep`.

    Args:
        reader: as of `ReaderPlaces.take`.

    Returns:
        None: the owner has no limit.

    Raises:
        TooManyConnections: all places of the owner are taken.
    """
    place: Place | None = scope.get(READER_PLACE)
    if place is not None:
        await place.take(reader)
    return place
