"""The API keys of a running process: read again when their file changes.

A changed file that cannot be used (half written, empty, gone) changes nothing: the keys that were
read last stay, and `problem` says why. A deployment whose keys stand in the variable itself has no
file to change. Invariant: no message shows a key.
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.credentials import Identity, read_keys
from shared.config.file_version import file_version
from shared.errors import ConfigurationError
from shared.text.redaction import remember


class KeyFile:
    """The keys of the setting `api_keys`.

    Attributes:
        identities: key -> identity, as read last.
        problem: why the changed file was not used; "": it was.
        is_file: the setting names a file, which may change.

    Raises:
        ConfigurationError: as `read_keys`.
    """

    def __init__(self, value: str) -> None:
        self.problem = ""
        self._value = value
        self._version = file_version(value) if value else None
        self.is_file = self._version is not None
        self.identities: Mapping[str, Identity] = read_keys(value)
        remember(*self.identities)

    def look(self) -> bool:
        """Read the file again if it has changed; return whether the keys or `problem` changed.

        Blocks while it reads: a file of 10,000 keys takes about 20 ms.
        """
        if not self.is_file:
            return False
        version, before = file_version(self._value), self.problem
        if version == self._version:
            return False
        # The version is older than the text, so that a change meanwhile is found by the next look.
        self._version = version
        try:
            if version is None:
                raise ConfigurationError("the file of the API keys is gone")
            found = read_keys(self._value)
        except ConfigurationError as exc:
            self.problem = str(exc)
            return self.problem != before
        self.problem = ""
        is_changed = found != self.identities
        self.identities = found
        remember(*found)
        return is_changed or before != ""
