"""Decides whose planned work may start: that of owners whom credentials name today.

A revoked key must cause no more costs, also not through work that it planned before. The jobs role
reads the same keys as the nodes, and reads their file again when it changes. Where tokens are
accepted, an owner who plans work with tokens is known too (shared/later/token_owners.py). Without
keys and tokens the only owner is `anonymous`, as on a node without credentials. So a jobs role
without the credentials' settings starts nothing for named owners, and logs this. Held work is kept,
and continues when credentials name its owner again.

It also knows the limits of owners, from the file that the nodes read; a token's claims are not
known any more. A batch asks no lines while the tokens of its owner's day are used up.

This module only decides; jobs/schedules.py and jobs/batch hold their work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from shared.config.credentials import ACT, ANONYMOUS
from shared.config.key_file import KeyFile
from shared.config.limits import NO_LIMITS, OwnerLimits
from shared.config.limits_file import LimitsFile
from shared.config.settings import Settings
from shared.later.token_owners import is_planner
from shared.queue.allowance import used_today
from shared.redis.client import Client

log = logging.getLogger(__name__)

HOLD_S = 60.0  # until held work is checked again
KEY_FILE_CHECK_S = 1.0  # between two looks at the file of the keys
LOG_APART_S = 3_600.0  # between two log lines about one owner
LOGGED_MAX = 1_000  # owners whose last log line is remembered


class Owners:
    """The owners whom credentials name, and their limits.

    Args:
        names: the owners of keys.
        clock: returns monotonic seconds.
        redis: knows the owners without a key who plan work; None: nobody plans without a key.
    """

    def __init__(
        self,
        names: Iterable[str],
        clock: Callable[[], float] = time.monotonic,
        redis: Client | None = None,
    ) -> None:
        self._names = frozenset(names)
        self._clock = clock
        self._redis = redis
        self._key_file: KeyFile | None = None
        self._limits_file: LimitsFile | None = None
        self._has_tokens = False
        self._looked_s = clock()
        self._logged_s: dict[tuple[str, str], float] = {}

    @classmethod
    def from_settings(cls, settings: Settings, redis: Client | None = None) -> Owners:
        """Read the owners from the API keys.

        Raises:
            ConfigurationError: the keys or the limits are malformed.
        """
        key_file = KeyFile(settings.api_keys)
        has_tokens = settings.has_tokens
        names = {identity.owner for identity in key_file.identities.values()}
        if not names and not has_tokens:
            names = {ANONYMOUS}
        owners = cls(names, redis=redis)
        owners._key_file, owners._has_tokens = key_file, has_tokens
        owners._limits_file = LimitsFile(settings)
        return owners

    def is_named(self, owner: str) -> bool:
        """Whether a key names this owner."""
        self._look_at_files()
        return owner in self._names

    def limits_of(self, owner: str) -> OwnerLimits:
        """Return the limits of an owner."""
        self._look_at_files()
        return NO_LIMITS if self._limits_file is None else self._limits_file.limits.of(owner)

    async def has_tokens_left(self, owner: str) -> bool:
        """Whether lines of the owner's batches may be asked today.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        limits = self.limits_of(owner)
        if self._redis is None or not limits.tokens_per_day:
            return True
        return await used_today(self._redis, owner) < limits.tokens_per_day

    async def is_known(self, owner: str) -> bool:
        """Whether a key names this owner, or the owner plans work with tokens.

        Raises:
            Unavailable: Redis did not answer in time.
        """
        if self.is_named(owner):
            return True
        if self._redis is None or not self._can_be_keyless():
            return False
        return await is_planner(self._redis, owner, time.time())

    def _can_be_keyless(self) -> bool:
        identities = self._key_file.identities.values() if self._key_file else ()
        return self._has_tokens or any(ACT in identity.scopes for identity in identities)

    def _look_at_files(self) -> None:
        now_s = self._clock()
        if now_s - self._looked_s < KEY_FILE_CHECK_S:
            return
        self._looked_s = now_s
        if self._limits_file is not None:
            self._limits_file.look_and_log()
        self._look_at_key_file()

    def _look_at_key_file(self) -> None:
        key_file = self._key_file
        if key_file is None or not key_file.look():
            return
        if key_file.problem:
            log.error("api keys not read again", extra={"reason": key_file.problem})
            return
        self._names = frozenset(identity.owner for identity in key_file.identities.values())
        log.info("api keys read again", extra={"keys": len(key_file.identities)})

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
