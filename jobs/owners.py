"""Whose work may still be started: owners that a key names today.

A key that was taken away must spend nothing more, also through what it had planned. The jobs role
reads the same keys as the nodes, at its start. Without keys the one owner is `anonymous`, as on a
node without credentials; so a jobs role that was not given the keys starts nothing for an owner
with a name, and says so in its log. What is held is kept: it goes on when its owner is known again.

Decides only; what holding means is for schedules (jobs/schedules.py) and batches (jobs/batch).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from shared.config.credentials import ANONYMOUS, read_keys
from shared.config.settings import Settings

log = logging.getLogger(__name__)

HOLD_S = 60.0  # what belongs to an unknown owner is looked at again after this
SAY_EVERY_S = 3_600.0  # one line in the log for each owner in this time
SAID_MAX = 1_000  # owners that are remembered for it


class Owners:
    """The owners that are known to this process.

    Args:
        names: of the owners.
        clock: monotonic seconds.
    """

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = frozenset(names)
        self._clock = clock
        self._said_s: dict[tuple[str, str], float] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Owners:
        """Read the keys.

        Raises:
            ConfigurationError: they are malformed.
        """
        identities = read_keys(settings.api_keys).values()
        return cls({one.owner for one in identities} or {ANONYMOUS})

    def is_known(self, owner: str) -> bool:
        """Whether a key names this owner."""
        return owner in self._names

    def say_schedule_held(self, owner: str, schedule_id: str) -> None:
        """Log that a due schedule does not fire, once per owner in `SAY_EVERY_S`."""
        if self._is_news("schedule", owner):
            log.warning("schedule held", extra={"owner": owner, "schedule": schedule_id})

    def say_batch_held(self, owner: str, batch_id: str) -> None:
        """Log that a batch asks no further lines, once per owner in `SAY_EVERY_S`."""
        if self._is_news("batch", owner):
            log.warning("batch held", extra={"owner": owner, "batch_id": batch_id})

    def _is_news(self, what: str, owner: str) -> bool:
        now_s = self._clock()
        said_s = self._said_s.get((what, owner))
        if said_s is not None and now_s - said_s < SAY_EVERY_S:
            return False
        if len(self._said_s) >= SAID_MAX:
            self._said_s.clear()
        self._said_s[what, owner] = now_s
        return True
