"""Says whether a file has changed, also if its name leads to another file now."""

from __future__ import annotations

import os
from typing import NamedTuple


class FileVersion(NamedTuple):
    """Another version of a file differs in at least one of these.

    Attributes:
        device, inode: another file has the name, as with `mv` and with Kubernetes' secrets.
        size: bytes.
        changed_ns: the later of the times of its last change, Unix ns.
    """

    device: int
    inode: int
    size: int
    changed_ns: int


def file_version(path: str) -> FileVersion | None:
    """Return the version of the file at `path`, through links; None: there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileVersion(
        found.st_dev, found.st_ino, found.st_size, max(found.st_mtime_ns, found.st_ctime_ns)
    )
