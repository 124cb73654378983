"""The name under which a person can type our command again, for hints.

`tailrace` if the shell finds the same program under this name; otherwise its path, for instance
`.venv/bin/tailrace` in a checkout.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "tailrace"


def typed_name(argv: Sequence[str] | None = None, folder: Path | None = None) -> str:
    """Return the name or path.

    Args:
        argv: of this process.
        folder: the working directory.
    """
    given = (argv or sys.argv or [NAME])[0]
    path = Path(given)
    if path.name != NAME:
        return NAME  # `python -m cli.main`, or a program that imports us
    found = shutil.which(NAME)
    absolute = Path(os.path.abspath(path if len(path.parts) > 1 else found or path))
    if found is not None and Path(os.path.abspath(found)) == absolute:
        return NAME
    here = (folder or Path.cwd()).absolute()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
