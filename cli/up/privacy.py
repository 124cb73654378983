"""Keeps stored data private to the user who runs Tailrace.

The append-only file of Redis holds prompts, answers, keys and webhook secrets in plain text. Our
processes create files that only their own user can access (`UMASK`, whatever the caller's umask
is). Older files of the private server get the same permissions. Directories are not changed,
because other users may need them; an open directory is reported with the command that closes it.

Invariant: only files of this user are changed, and never through a symbolic link. Imports little,
because the guard of the private Redis server imports this module and stays in memory.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.config.settings import Settings

UMASK = 0o077
OTHERS_MASK = 0o077  # the mode bits that give access to other users
# The names in the data directory that belong to Tailrace.
OWN_NAMES = ("lock", "server.log", "files", "appendonlydir", "appendonly.aof", "dump.rdb")


def open_directories(settings: Settings) -> list[str]:
    """Return one line for each of our directories that other users can access.

    Raises:
        ConfigurationError: TAILRACE_FILES_URL is invalid.
    """
    from shared.files.objects import directory_of

    directories = [] if settings.redis_url else [Path(settings.data_dir).resolve()]
    if (files := directory_of(settings)) is not None:
        directories.append(files)
    # Nobody can reach a directory inside a closed one.
    reachable = [path for path in directories if not _is_closed_above(path, directories)]
    return [line for path in dict.fromkeys(reachable) if (line := judge(path))]


def is_open_file(path: str) -> bool:
    """Whether `path` is a regular file that other users can read, write or execute."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # the setting may hold something other than a path
        return False
    return stat.S_ISREG(mode) and bool(mode & OTHERS_MASK)


def judge(directory: Path) -> str:
    """Return a line if other users can access a directory; "" if not, or if it does not exist."""
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError:
        return ""
    if not mode & OTHERS_MASK:
        return ""
    where = directory.resolve()
    what = "written to" if mode & 0o022 else "read"
    return (
        f"{where} can be {what} by others on this machine (mode {mode:o}), and holds prompts, "
        f"answers and secrets: chmod 700 {shlex.quote(str(where))}"
    )


def close_own(directory: Path) -> None:
    """Remove the access of other users to what the private server wrote into `directory`.

    Files whose mode cannot be changed are skipped; `judge` reports the directory then.
    """
    for path in _own_paths(directory):
        with contextlib.suppress(OSError):
            _close(path)


def _own_paths(directory: Path) -> Iterator[Path]:
    for name in OWN_NAMES:
        path = directory / name
        yield path
        # `files` may hold many uploads: closing the directory is enough.
        if name == "appendonlydir" and path.is_dir() and not path.is_symlink():
            yield from _entries(path)


def _entries(path: Path) -> Iterable[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return ()


def _close(path: Path) -> None:
    """Remove the access of other users to one path.

    Works on a descriptor, so another user cannot exchange the file between check and change.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and found.st_mode & OTHERS_MASK:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~OTHERS_MASK)
    finally:
        os.close(descriptor)


def _is_closed_above(path: Path, directories: list[Path]) -> bool:
    """Whether another of `directories` contains `path` and is closed to other users."""
    parents = [other for other in directories if other != path and path.is_relative_to(other)]
    return any(parent.exists() and not judge(parent) for parent in parents)
