"""The lines that a user typed in `tailrace chat`, kept in a file for the next conversation.

The file is `$XDG_STATE_HOME/tailrace/chat_history` (by default below ~/.local/state), for its user
only, with at most `LINES_MAX` lines. A line may hold a secret, so the file is never created with
other rights and no link is followed. A file that cannot be used is no reason to hold no
conversation. Invariant: several conversations at once lose no line of each other, except while the
file is shortened at a start.
Source: XDG Base Directory Specification 0.8.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

LINES_MAX = 1_000
LINE_BYTES_MAX = 16_384  # a longer line is not kept
FILE_BYTES_MAX = 4_194_304  # of a file that is larger, only the end is read
SPARE_LINES = 200  # more than `LINES_MAX`, before the file is shortened

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def history_path(environ: Mapping[str, str]) -> Path | None:
    """Return the place of the file; a relative XDG_STATE_HOME does not count. None: no home."""
    state, home = environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~")
    if not os.path.isabs(state):
        if not os.path.isabs(home):
            return None
        state = os.path.join(home, ".local", "state")
    return Path(state) / "tailrace" / "chat_history"


class History:
    """The lines of one user.

    Args:
        path: of the file; None: nothing is kept.

    Attributes:
        problem: why the file cannot be used; empty: it can.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.problem = ""

    def lines(self) -> list[str]:
        """Return the kept lines, the oldest first, and shorten the file if it is too long."""
        if self._path is None:
            return []
        try:
            kept = self._read(self._path)
            if len(kept) > LINES_MAX + SPARE_LINES:
                self._replace(self._path, kept[-LINES_MAX:])
        except FileNotFoundError:
            return []
        except OSError as exc:
            self._give_up(exc)
            return []
        return kept[-LINES_MAX:]

    def add(self, line: str) -> None:
        """Keep one line. It must hold no line end."""
        raw = line.encode("utf-8", "surrogateescape") + b"\n"
        if self._path is None or len(raw) > LINE_BYTES_MAX:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, _APPEND, 0o600)
            try:
                _check(file)
                os.write(file, raw)
            finally:
                os.close(file)
        except OSError as exc:
            self._give_up(exc)

    def _read(self, path: Path) -> list[str]:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            _check(file.fileno())
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - FILE_BYTES_MAX))
            raw = file.read(FILE_BYTES_MAX)
        lines = raw.decode("utf-8", "surrogateescape").split("\n")
        if size > FILE_BYTES_MAX:
            del lines[0]  # the rest of a line
        return [line for line in lines if line]

    def _replace(self, path: Path, lines: list[str]) -> None:
        new = path.with_name(f"{path.name}.{os.getpid()}")
        file = os.open(new, _APPEND | os.O_EXCL, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        os.replace(new, path)

    def _give_up(self, exc: OSError) -> None:
        self.problem = f"{self._path} keeps no lines: {exc.strerror}"
        self._path = None


def _check(file: int) -> None:
    """Refuse what is no file of this user; take away the rights of others.

    Raises:
        OSError: it is a device or a pipe, or belongs to somebody else.
    """
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(1, "not a file of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.fchmod(file, 0o600)
