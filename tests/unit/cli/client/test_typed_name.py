"""Hints name our command as it can be typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.client import typed_name as module
from cli.client.typed_name import typed_name


@pytest.mark.parametrize(
    ("given", "on_path", "said"),
    [
        (".venv/bin/tailrace", None, ".venv/bin/tailrace"),
        ("{here}/.venv/bin/tailrace", None, ".venv/bin/tailrace"),
        ("/opt/tools/tailrace", None, "/opt/tools/tailrace"),
        ("/usr/local/bin/tailrace", "/usr/local/bin/tailrace", "tailrace"),
        ("tailrace", "/usr/local/bin/tailrace", "tailrace"),
        (".venv/bin/tailrace", "/usr/local/bin/tailrace", ".venv/bin/tailrace"),
        ("/x/cli/main.py", None, "tailrace"),
        ("-c", None, "tailrace"),
    ],
)
def test_the_name_can_be_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, on_path: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.shutil, "which", lambda name: on_path)

    assert typed_name([given.format(here=tmp_path)]) == said
