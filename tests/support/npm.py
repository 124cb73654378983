"""The JavaScript clients of tests/clients, installed as they are pinned there.

What cannot be installed fails, saying what is missing: nothing is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

CLIENTS = Path(__file__).parents[1] / "clients"
INSTALL_S = 300


def tool(*names: str) -> str:
    """Return the path of the first of these programs that is there.

    Raises:
        AssertionError: none is.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"these tests need {' or '.join(names)} on PATH: see docs/testing.md")


@cache
def installed() -> Path:
    """Return node_modules, with the packages of package-lock.json in it.

    Raises:
        AssertionError: npm is not there, or could not install them.
    """
    modules, lock = CLIENTS / "node_modules", CLIENTS / "package-lock.json"
    stamp = modules / ".set-up"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        done = subprocess.run(
            [tool("npm"), "ci", "--no-audit", "--no-fund"],
            cwd=CLIENTS,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
        )
        assert done.returncode == 0, f"npm ci failed:\n{done.stdout}\n{done.stderr}"
        stamp.write_bytes(lock.read_bytes())
    return modules
