"""The rules of docs/style.md that a program can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "api": {"api", "shared"},
    "workers": {"workers", "shared"},
    "shared": {"shared"},
    "jobs": {"api", "shared", "jobs"},
    "cli": {"api", "workers", "shared", "jobs", "cli"},
}
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
SLEEPS = ("asyncio.sleep", "anyio.sleep", "time.sleep", "sleep")
ENVIRONMENT = re.compile(r"\bos\.environ\b|\bos\.getenv\b|\benviron\[")

MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_packages(tree: ast.AST) -> set[str]:
    """Return which of our packages a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found & {*MAY_IMPORT, "tests"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    """api -> shared <- workers; the command line may import all; nobody imports the tests."""
    tree = ast.parse(path.read_text())

    assert imported_packages(tree) <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for_and_stays_small(path: Path) -> None:
    source = path.read_text()

    assert not source.strip() or ast.get_docstring(ast.parse(source))
    assert source.count("\n") <= MODULE_LINES_MAX


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_stay_small(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_swallowed_whole(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
            is_widest = isinstance(node.type, ast.Name) and node.type.id == "BaseException"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))

            assert not is_widest or raises, f"line {node.lineno}: cancellation is swallowed"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_task_has_an_owner(path: Path) -> None:
    """Tasks are made by a TaskGroup; the loop's and asyncio's own `create_task` own nothing."""
    source = path.read_text()

    assert not re.search(r"\b(asyncio|loop)\.(create_task|ensure_future|gather)\(", source)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name != "settings.py"], ids=name_of
)
def test_settings_alone_read_our_variables(path: Path) -> None:
    """Other variables may be read where a role is started: in `cli`, `serve` and the backends."""
    for line in path.read_text().splitlines():
        if ENVIRONMENT.search(line):
            assert "TAILRACE_" not in line


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=name_of)
def test_nothing_is_put_off_in_a_comment(path: Path) -> None:
    words = "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"])

    assert not re.search(rf"\b({words})\b", path.read_text())


@pytest.mark.parametrize(
    "path", [path for path in TESTS if path.name.startswith("test_")], ids=name_of
)
def test_no_test_sleeps_to_wait(path: Path) -> None:
    """Waiting has a condition and a deadline: tests/support/wait.py. `sleep(0)` only yields.

    Where silence itself is what is tested, the line says so in a comment.
    """
    source = path.read_text()
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in SLEEPS:
            is_zero = len(node.args) == 1 and ast.unparse(node.args[0]) == "0"

            assert is_zero or "  # " in lines[node.lineno - 1], f"line {node.lineno}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_module_is_looked_at(package: str) -> None:
    assert any(path.relative_to(ROOT).parts[0] == package for path in MODULES)
