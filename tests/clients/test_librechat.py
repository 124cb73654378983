"""The settings for LibreChat in docs/clients.md, checked with LibreChat's own schema."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.npm import CLIENTS, installed, tool

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
ANSWER_S = 60


def mistakes(settings: str) -> list[str]:
    installed()
    done = subprocess.run(
        [tool("node"), "librechat.mjs"], cwd=CLIENTS, input=settings, capture_output=True,
        text=True, check=True, timeout=ANSWER_S,
    )  # fmt: skip
    found: list[str] = json.loads(done.stdout)
    return found


def documented() -> str:
    (settings,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(settings)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("", []),
        ("        default: [demo]\n", ["endpoints.custom.0.models.default"]),
    ],
)
def test_librechat_accepts_the_documented_settings_and_needs_each_of_them(
    line: str, found: list[str]
) -> None:
    assert line in documented()
    assert mistakes(documented().replace(line, "")) == found
