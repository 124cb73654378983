"""The examples of docs/stages.md are complete: models with stages, and a stage with its test."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shared.config.models import parse_models
from shared.config.stages import STAGES, class_of
from shared.log.events import Token
from tests.support.open_stages import through

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "stages.md").read_text()
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
LINES_MAX = 20


async def test_the_first_example_is_a_complete_model_whose_filter_masks_its_words() -> None:
    tables = tomllib.loads(TOML[0])
    (name,) = tables["models"]
    model = parse_models(tables, "models.toml")[name]

    items = await through(model, "The FAL", "con and blue", " harvest.")

    assert tables["models"][name]["stages"][0]["stage"] == "filter"
    assert "".join(item.text for item in items if isinstance(item, Token)) == (
        "The ****** and ************."
    )


@pytest.mark.parametrize("text", [text for text in TOML if text.startswith("[[models")])
def test_the_other_tables_of_the_page_are_valid(text: str, tmp_path: Path) -> None:
    head = '[models.chat]\nbackend = "demo"\n'
    (model,) = parse_models(tomllib.loads(head + text), str(tmp_path / "models.toml")).values()

    assert all(table.stage in STAGES or class_of(table.stage) for table in model.stages)


@pytest.mark.parametrize("name", STAGES)
def test_the_page_describes_every_stage_with_its_members(name: str) -> None:
    section = PAGE.partition(f"\n## `{name}`\n")[2].partition("\n## ")[0]
    table = section[section.index("| member |") :].partition("\n\n")[0]
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", table, re.M)

    assert set(STAGES[name].members) == {n.strip(" `") for row in rows for n in row.split(",")}


def test_the_stage_of_the_page_has_twenty_lines_and_its_test_runs(tmp_path: Path) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.S)
    assert found is not None
    path = tmp_path / "test_careful_of_the_page.py"
    path.write_text(found[1])

    lines = [line for line in found[1].splitlines() if line.strip()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert len(lines) <= LINES_MAX
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
