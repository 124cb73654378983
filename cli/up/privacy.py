"""Who on this machine may read what is kept: prompts, answers, keys and secrets of webhooks.

The append-only file holds all of them in plain text. What our processes write is for their own user
alone, whatever the caller's umask is (`UMASK`). What stood there before and is ours is closed; a
directory is its owner's to close, so one that is open is named, and how to close it.
Invariant: only files of this user's are changed, and none behind a symbolic link.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from shared.config.settings import Settings
from shared.files.objects import directory_of

UMASK = 0o077
OTHERS = 0o077  # the bits of a mode that let anybody else in
# What the private server and its guard write into the data directory, and where files lie.
OURS = ("lock", "server.log", "files", "appendonlydir", "appendonly.aof", "dump.rdb")


def open_directories(settings: Settings) -> list[str]:
    """Say, a line each, which directories of ours others on this machine can enter or read.

    Raises:
        ConfigurationError: TAILRACE_FILES_URL cannot be used.
    """
    directories = [] if settings.redis_url else [Path(settings.data_dir).resolve()]
    if (files := directory_of(settings)) is not None:
        directories.append(files)
    # What lies in a closed directory is closed, too.
    reached = [path for path in directories if not _is_closed_above(path, directories)]
    return [line for path in dict.fromkeys(reached) if (line := judge(path))]


def is_open_file(path: str) -> bool:
    """Whether `path` names a file that others on this machine can read, write or run."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a setting that may hold a path, and holds something else
        return False
    return stat.S_ISREG(mode) and bool(mode & OTHERS)


def judge(directory: Path) -> str:
    """Say that a directory is open and how to close it; empty: it is closed, or not there."""
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError:
        return ""
    if not mode & OTHERS:
        return ""
    where = directory.resolve()
    what = "written to" if mode & 0o022 else "read"
    return (
        f"{where} can be {what} by others on this machine (mode {mode:o}), and holds prompts, "
        f"answers and secrets: chmod 700 {shlex.quote(str(where))}"
    )


def close_own(directory: Path) -> None:
    """Take from others what the private server has written into `directory` before.

    What cannot be changed stays: the directory's own line says that it is open.
    """
    for path in _own(directory):
        with contextlib.suppress(OSError):
            _close(path)


def _own(directory: Path) -> Iterator[Path]:
    for name in OURS:
        path = directory / name
        yield path
        # The files of uploads may be many: closing their directory is enough.
        if name == "appendonlydir" and path.is_dir() and not path.is_symlink():
            yield from _entries(path)


def _entries(path: Path) -> Iterable[Path]:
    try:
        return sorted(path.iterdir())
    except OSError:
        return ()


def _close(path: Path) -> None:
    """Change what was looked at, and not what somebody has put in its place since."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & ~OTHERS)
    finally:
        os.close(descriptor)


def _is_closed_above(path: Path, directories: list[Path]) -> bool:
    above = [each for each in directories if each != path and path.is_relative_to(each)]
    return any(each.exists() and not judge(each) for each in above)
