"""Decides whose planned work may start: only that of owners whom an API key names today.

A revoked key must cause no more costs, also not through work that it planned before. The jobs role
reads the same keys as the nodes, at its start. Without keys the only owner is `anonymous`, as on a
node without credentials. So a jobs role without the keys starts nothing for named owners, and logs
this. Held work is kept, and continues when a key names its owner again.

This module only decides; jobs/schedules.py and jobs/batch hold their work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from shared.config.credentials import ANONYMOUS, read_keys
from shared.config.settings import Settings

log = logging.getLogger(__name__)

HOLD_S = 60.0  # until held work is checked again
LOG_APART_S = 3_600.0  # between two log lines about one owner
LOGGED_MAX = 1_000  # owners whose last log line is remembered


class Owners:
    """The owners whom a key names.

    Args:
        names: their names.
        clock: returns monotonic seconds.
    """

    def __init__(self, names: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = frozenset(names)
        self._clock = clock
        self._logged_s: dict[tuple[str, str], float] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Owners:
        """Read the owners from the API keys.

        Raises:
            ConfigurationError: the keys are malformed.
        """
        identities = read_keys(settings.api_keys).values()
        return cls({identity.owner for identity in identities} or {ANONYMOUS})

    def is_known(self, owner: str) -> bool:
        """Whether a key names this owner."""
        return owner in self._names

    def log_schedule_held(self, owner: str, schedule_id: str) -> None:
        """Log that a due schedule does not fire, once per owner in `LOG_APART_S`."""
        if self._may_log("schedule", owner):
            log.warning("schedule held", extra={"owner": owner, "schedule": schedule_id})

    def log_batch_held(self, owner: str, batch_id: str) -> None:
        """Log that a batch asks no further lines, once per owner in `LOG_APART_S`."""
        if self._may_log("batch", owner):
            log.warning("batch held", extra={"owner": owner, "batch_id": batch_id})

    def _may_log(self, kind: str, owner: str) -> bool:
        now_s = self._clock()
        logged_s = self._logged_s.get((kind, owner))
        if logged_s is not None and now_s - logged_s < LOG_APART_S:
            return False
        if len(self._logged_s) >= LOGGED_MAX:
            self._logged_s.clear()
        self._logged_s[kind, owner] = now_s
        return True
