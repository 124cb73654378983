"""The rules of docs/style.md that a program can check: one test for each rule.

Each test collects every place that breaks its rule and fails with the whole list, so that one run
shows all the work that is left.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
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
UNOWNED_TASK = re.compile(r"\b(asyncio|loop)\.(create_task|ensure_future|gather)\(")
PUT_OFF = re.compile(rf"\b({'|'.join(['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'HA' + 'CK'])})\b")

MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]
# For applications and the terminal commands: no role imports it, and it imports nothing of ours.
CLIENT = sorted((ROOT / "clients" / "python" / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, kinds))


def place(path: Path, line: int = 0) -> str:
    """Return `api/app.py:12`, which an editor opens."""
    return f"{path.relative_to(ROOT)}{f':{line}' if line else ''}"


def imported_packages(path: Path) -> set[str]:
    """Return which of our packages a module imports, also inside functions."""
    found = set()
    for node in nodes(path, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "relative import").split(".")[0])
    return found & {*MAY_IMPORT, "tests", "relative import"}


def test_imports_go_one_way() -> None:
    """api -> shared <- workers; the command line may import all; nobody imports the tests."""
    wrong = {
        place(path): found
        for path in MODULES
        if (found := imported_packages(path) - MAY_IMPORT[path.relative_to(ROOT).parts[0]])
    }

    assert not wrong


def test_the_client_and_the_roles_do_not_import_each_other() -> None:
    wrong = [place(path) for path in CLIENT if imported_packages(path)]
    roles = [path for path in MODULES if not path.is_relative_to(ROOT / "cli" / "client")]
    wrong += [place(path) for path in roles if "tailrace_client" in path.read_text()]

    assert CLIENT and not wrong


def test_every_module_has_a_docstring() -> None:
    silent = [
        place(path)
        for path in [*MODULES, *CLIENT]
        if path.read_text().strip() and not ast.get_docstring(parsed(path))
    ]

    assert not silent


def test_modules_stay_small() -> None:
    large = [
        place(path)
        for path in [*MODULES, *CLIENT]
        if path.read_text().count("\n") > MODULE_LINES_MAX
    ]

    assert not large


def test_functions_stay_small() -> None:
    large = [
        f"{place(path, node.lineno)} {node.name}"
        for path in [*MODULES, *CLIENT]
        for node in nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]

    assert not large


def test_no_handler_catches_everything() -> None:
    """A bare `except` and a `BaseException` that is not raised again swallow a cancellation."""
    wrong = []
    for path in MODULES:
        for node in nodes(path, ast.ExceptHandler):
            assert isinstance(node, ast.ExceptHandler)
            is_widest = isinstance(node.type, ast.Name) and node.type.id == "BaseException"
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if node.type is None or (is_widest and not raises):
                wrong.append(place(path, node.lineno))

    assert not wrong


def test_every_task_has_an_owner() -> None:
    """A TaskGroup creates tasks; the loop's and asyncio's own `create_task` own nothing."""
    wrong = [place(path) for path in MODULES if UNOWNED_TASK.search(path.read_text())]

    assert not wrong


def test_settings_alone_read_our_variables() -> None:
    """Other variables may be read where a role is started: in `cli`, `serve` and the backends."""
    wrong = [
        place(path, number)
        for path in MODULES
        if path.name != "settings.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ENVIRONMENT.search(line) and "TAILRACE_" in line
    ]

    assert not wrong


def test_nothing_is_put_off_in_a_comment() -> None:
    wrong = [place(path) for path in [*MODULES, *TESTS] if PUT_OFF.search(path.read_text())]

    assert not wrong


def test_no_test_sleeps_to_wait() -> None:
    """Waiting has a condition and a deadline: tests/support/wait.py. `sleep(0)` only yields.

    Where silence itself is tested, the line says so in a comment.
    """
    wrong = []
    for path in TESTS:
        if not path.name.startswith("test_") or "sleep(" not in path.read_text():
            continue
        lines = path.read_text().splitlines()
        for node in nodes(path, ast.Call):
            assert isinstance(node, ast.Call)
            if ast.unparse(node.func) not in SLEEPS:
                continue
            is_zero = len(node.args) == 1 and ast.unparse(node.args[0]) == "0"
            if not is_zero and "  # " not in lines[node.lineno - 1]:
                wrong.append(place(path, node.lineno))

    assert not wrong


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_package_is_checked(package: str) -> None:
    assert any(path.relative_to(ROOT).parts[0] == package for path in MODULES)
