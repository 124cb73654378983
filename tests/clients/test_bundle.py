"""The committed pages are exactly the bundle of their sources."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from api.pages.pages import DIRECTORY
from tests.support import npm

SOURCE = npm.CLIENTS.parents[1] / "web"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_committed_pages_are_what_their_sources_give(tmp_path: Path) -> None:
    """After a change of the sources run `make pages`, and commit the result."""
    npm.installed(SOURCE)
    argv = [npm.tool("node"), "build.mjs", str(tmp_path)]
    done = subprocess.run(argv, cwd=SOURCE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    built, committed = contents(tmp_path), contents(DIRECTORY)
    assert sorted(built) == sorted(committed)
    assert [name for name in built if built[name] != committed[name]] == []


def test_the_rules_of_the_pages_hold_without_a_browser() -> None:
    npm.installed(SOURCE)

    assert "# fail 0" in npm.run(SOURCE, "test")


def test_the_lock_of_the_pages_names_no_index() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text())

    assert [name for name, each in lock["packages"].items() if "resolved" in each] == []
