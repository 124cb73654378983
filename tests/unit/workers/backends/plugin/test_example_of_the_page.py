"""The plug-in of docs/backends.md is complete: its test runs, and a worker can use it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from shared.config.models import load_models
from shared.config.settings import Settings
from shared.log.events import Token
from shared.log.request import Request
from workers.backends import build_backends

ROOT = Path(__file__).parents[5]
PAGE = (ROOT / "docs" / "backends.md").read_text()
LINES_MAX = 20


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The first Python block of the page, as a module that can be imported."""
    found = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert found is not None
    path = tmp_path / "test_echo_of_the_page.py"
    path.write_text(found[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop(path.stem, None)


def test_the_plugin_has_twenty_lines_with_its_test(module: Path) -> None:
    assert len([line for line in module.read_text().splitlines() if line.strip()]) <= LINES_MAX


def test_its_test_runs(module: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(module)],
        cwd=module.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


async def test_a_worker_can_use_it(module: Path) -> None:
    path = module.with_name("models.toml")
    path.write_text(f'[models.echo]\nbackend = "{module.stem}:Echo"\nwords = 2\n')
    (backend,) = build_backends(load_models(str(path)), Settings(), {}).values()
    request = Request([{"role": "user", "content": "to be or not"}])
    async with aclosing(backend.stream(request, prefix="", seed="s", form="")) as stream:
        items = [item async for batch in stream for item in batch]

    assert [item.text for item in items if isinstance(item, Token)] == ["to ", "be "]
