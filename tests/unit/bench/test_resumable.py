"""resumable-stream in benchmarks: omitted with a message if it is missing or loses readers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.support import resumable
from bench.support.load import InexactText


class Load:
    def __init__(self) -> None:
        self.closed = 0

    async def close(self) -> None:
        self.closed += 1


async def run(result: float | Exception) -> float:
    if isinstance(result, Exception):
        raise result
    return result


async def test_a_run_that_loses_readers_is_omitted_and_disconnects_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    harness: Any = SimpleNamespace(load=Load())

    assert await resumable.unless_lost(harness, run(2.5)) == 2.5
    assert harness.load.closed == 0
    assert await resumable.unless_lost(harness, run(InexactText("3 of 9 texts"))) is None
    assert harness.load.closed == 1
    assert "left out: 3 of 9 texts" in capsys.readouterr().err
    with pytest.raises(OSError):
        await resumable.unless_lost(harness, run(OSError("something else")))


def test_without_node_the_message_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "Node.js" in resumable.why_missing()
    assert "Node.js" in resumable.install()


@pytest.mark.parametrize(("output", "major"), [("v20.20.2\n", 20), ("v9.1.0", 9), ("", 0)])
def test_major_version_of_node(output: str, major: int) -> None:
    assert resumable._major(output) == major


def test_pinned_versions_are_exact_and_name_no_host() -> None:
    here = resumable.HERE
    dependencies = json.loads((here / "package.json").read_text())["dependencies"]
    found = resumable.versions(here / "package-lock.json")

    assert {f"node_modules/{name}": version for name, version in dependencies.items()}.items() <= (
        found.items()
    )
    assert "://" not in (here / "package-lock.json").read_text()


def test_packages_that_are_not_installed_have_no_versions(tmp_path: Path) -> None:
    assert resumable.versions(tmp_path / "package-lock.json") == {}
