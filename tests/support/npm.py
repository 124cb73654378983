"""The JavaScript clients of tests/clients, installed as they are pinned there.

What cannot be installed fails, saying what is missing: nothing is skipped.
"""

from __future__ import annotations

import fcntl
import json
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
    modules = CLIENTS / "node_modules"
    modules.mkdir(exist_ok=True)
    # Beside the directory, because npm empties it: two runs at once would tear it apart.
    with (CLIENTS / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _versions(CLIENTS / "package-lock.json") != _versions(modules / ".package-lock.json"):
            _install()
    return modules


def _install() -> None:
    done = subprocess.run(
        [tool("npm"), "ci", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"npm ci failed:\n{done.stdout}\n{done.stderr}"


def _versions(lock: Path) -> dict[str, str]:
    """The packages that a lock file names, or that npm has noted as installed."""
    if not lock.exists():
        return {}
    packages = json.loads(lock.read_text())["packages"]
    return {
        path: each["version"]
        for path, each in packages.items()
        if path and not each.get("optional") and "version" in each
    }


@cache
def bundle(name: str) -> str:
    """Return a program of tests/clients with its packages, as one script for a page.

    Raises:
        AssertionError: esbuild could not make it.
    """
    production = "--define:process.env.NODE_ENV='production'"
    done = subprocess.run(
        [installed() / ".bin" / "esbuild", name, "--bundle", "--minify", production],
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"esbuild failed:\n{done.stderr}"
    return done.stdout
