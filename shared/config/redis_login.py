"""The user and the password of a Redis server or of a sentinel, in the URL or in files.

A file may rotate: a secret store replaces it while the process runs. So each new connection reads
the file again, and no value is kept. Invariant: no error holds a part of a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from shared.errors import ConfigurationError
from shared.text.redaction import remember

FILE_BYTES_MAX = 4_096  # of one file with a user or a password


class LoginFileError(OSError):
    """A file with a user or a password cannot be used now."""


class RedisLogin(NamedTuple):
    """Where the user and the password come from. At most one source of each is not empty.

    Attributes:
        username_file, password_file: paths; each file holds one line of UTF-8.
    """

    username: str = ""
    password: str = ""
    username_file: str = ""
    password_file: str = ""

    def read(self) -> tuple[str, str]:
        """Return the user and the password as they are now; empty: there is none.

        Raises:
            LoginFileError: a file is absent, empty, too long or holds more than one line.
        """
        username = _read_line(self.username_file) if self.username_file else self.username
        password = _read_line(self.password_file) if self.password_file else self.password
        remember(password)
        return username, password

    def words(self) -> list[bytes]:
        """Return the words of the AUTH command to send first; empty: there is no login.

        Raises:
            LoginFileError: as `read`.
        """
        username, password = self.read()
        if username:  # as redis-py: a user without a password has an empty one
            return [b"AUTH", username.encode(), password.encode()]
        return [b"AUTH", password.encode()] if password else []

    def check(self) -> None:
        """Read the files once, at start.

        Raises:
            ConfigurationError: a file cannot be used.
        """
        try:
            self.read()
        except LoginFileError as exc:
            raise ConfigurationError(f"in the Redis URL: {exc}") from exc


def _read_line(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        text = raw.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a NUL in the path
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise LoginFileError(f"the login file {path!r} cannot be read: {reason}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise LoginFileError(f"the login file {path!r} has more than {FILE_BYTES_MAX} bytes")
    if not text or "\n" in text or "\r" in text:
        raise LoginFileError(f"the login file {path!r} must hold exactly one line")
    return text
