"""Bounds how many clients without credentials wait at once: of one address, and in all.

A socket that will send its token in its first frame is accepted before anybody knows who it is, so
strangers can hold such places for some seconds. Pure.
"""

from __future__ import annotations

from collections import Counter

OF_ADDRESS_MAX = 16
IN_ALL_MAX = 1_024


class WaitingPlaces:
    """The places of one node."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._taken.total()

    def take(self, address: str) -> bool:
        """Take a place for an address, if there is one; the caller gives it back."""
        if self._taken[address] >= OF_ADDRESS_MAX or len(self) >= IN_ALL_MAX:
            return False
        self._taken[address] += 1
        return True

    def give_back(self, address: str) -> None:
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]
