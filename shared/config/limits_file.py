"""The limits of a running process: read again when the file of `TAILRACE_LIMITS` changes.

A changed file that cannot be used (half written, malformed, gone) changes nothing: the limits that
were read last stay, and `problem` says why. Without a file the environment's defaults count.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from shared.config.file_version import file_version
from shared.config.limits import Limits, defaults_of, parse_limits
from shared.config.settings import Settings
from shared.errors import ConfigurationError

logger = logging.getLogger(__name__)

LIMITS_FILE_CHECK_S = 1.0


class LimitsFile:
    """The limits of all owners, as one process knows them.

    Attributes:
        limits: as read last.
        problem: why the changed file was not used; "": it was.

    Raises:
        ConfigurationError: the file cannot be read, or as `parse_limits`.
    """

    def __init__(self, settings: Settings) -> None:
        self.problem = ""
        self._path = settings.limits
        self._defaults = defaults_of(settings)
        self._version = file_version(self._path) if self._path else None
        self.limits = Limits(self._defaults)
        if self._path:
            self.limits = self._read()

    def look(self) -> bool:
        """Read the file again if it has changed; return whether limits or `problem` changed.

        Blocks while it reads.
        """
        version, before = file_version(self._path) if self._path else None, self.problem
        if version == self._version:
            return False
        # The version is older than the text, so that a change meanwhile is found by the next look.
        self._version = version
        try:
            found = self._read()
        except ConfigurationError as exc:
            self.problem = str(exc)
            return self.problem != before
        self.problem = ""
        is_changed = found != self.limits
        self.limits = found
        return is_changed or before != ""

    async def run(self) -> None:
        """Keep the limits up to date until cancelled."""
        while self._path:
            await asyncio.sleep(LIMITS_FILE_CHECK_S)
            if await asyncio.to_thread(self.look):
                self._log()

    def look_and_log(self) -> None:
        """Call `look`, and log a change."""
        if self.look():
            self._log()

    def _log(self) -> None:
        if self.problem:
            logger.error("limits not read again", extra={"reason": self.problem})
        else:
            logger.info("limits read again", extra={"owners": len(self.limits.owners)})

    def _read(self) -> Limits:
        try:
            text = Path(self._path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError) as exc:
            raise ConfigurationError(f"TAILRACE_LIMITS: {self._path}: {exc}") from exc
        return parse_limits(text, self._defaults, self._path)
