"""Who may import whom: the two tables in docs/architecture.md, "What may import what".

The first table says for each folder (or file) what its modules may import directly. The second one
says what a module never loads, directly or through others: it is checked on the import graph and,
for the modules that start a role, in a fresh interpreter.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    **dict.fromkeys(("api", "cli", "jobs", "shared", "workers"), ROOT),
    "tailrace_client": ROOT / "clients" / "python" / "src",
}
PAGE = "docs/architecture.md"
Graph = Mapping[str, set[str]]


@cache
def modules() -> dict[str, Path]:
    """Return our modules by their dotted names."""
    found = {}
    for package, above in PACKAGES.items():
        for path in sorted((above / package).rglob("*.py")):
            parts = path.relative_to(above).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str) -> Iterator[str]:
    """Yield every dotted name that a module imports, also inside functions and for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def known_prefix(name: str) -> str:
    """Return the module of ours that a dotted name is or is in; else the outside package."""
    while name and name not in modules():
        parent = name.rpartition(".")[0]
        if not parent:
            return name
        name = parent
    return name


@cache
def graph() -> dict[str, set[str]]:
    """Return for each module what it imports: modules of ours, and packages from outside."""
    return {
        name: {known_prefix(imported) for imported in imports_of(path.read_text())} - {name}
        for name, path in modules().items()
    }


def closure(start: str, edges: Graph) -> dict[str, list[str]]:
    """Return everything that importing `start` loads, each with the chain that leads there.

    Importing a module also runs the `__init__.py` of each package above it.
    """
    chains = {start: [start]}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        above = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        for imported in edges.get(name, set()) | (above if name in edges else set()):
            if imported not in chains:
                chains[imported] = [*chains[name], imported]
                waiting.append(imported)
    return chains


def cycles(edges: Graph) -> list[list[str]]:
    """Return the groups of modules that import one another in a circle (Tarjan)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for imported in edges[name] & edges.keys():
            if imported not in index:
                visit(imported)
                lowest[name] = min(lowest[name], lowest[imported])
            elif imported in stack:
                lowest[name] = min(lowest[name], index[imported])
        if lowest[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in edges:
        if name not in index:
            visit(name)
    return found


def rows(title: str) -> dict[str, list[str]]:
    """Return a table below a heading of the page: the names in its first cell and in its last."""
    section = (ROOT / PAGE).read_text().partition(f"## {title}\n")[2].partition("\n## ")[0]
    table = {}
    for line in section.splitlines():
        cells = line.strip().strip("|").split("|")
        first = re.findall(r"`([^`]+)`", cells[0]) if line.startswith("|") else []
        for name in first:
            table[name] = re.findall(r"`([^`]+)`", cells[-1])
    return table


def dotted(name: str) -> str:
    return name.removesuffix(".py").strip("/").replace("/", ".")


def is_within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def row_of(module: str, places: Mapping[str, list[str]]) -> str:
    """Return the most exact row that a module falls under; empty: none."""
    fitting = [place for place in places if is_within(module, place)]
    return max(fitting, key=len, default="")


@cache
def allowed() -> dict[str, list[str]]:
    return {
        dotted(place): [dotted(name) for name in names]
        for place, names in rows("What may import what").items()
    }


def test_every_module_has_a_row() -> None:
    lost = [name for name in modules() if "." in name and not row_of(name, allowed())]

    assert not lost, "\n".join(lost)


def test_modules_import_only_what_their_row_allows() -> None:
    wrong = []
    for name, imported in graph().items():
        row = row_of(name, allowed())
        for other in sorted(imported & modules().keys()):
            target = row_of(other, allowed())
            is_own = target == row
            places = [*allowed().get(row, ()), *allowed()["*"]]
            if not is_own and not any(is_within(other, place) for place in places):
                wrong.append(f"{name} ({row}) imports {other}")

    assert not wrong, "\n".join(wrong)


def test_no_row_allows_an_import_that_nobody_makes() -> None:
    """A table that allows more than is used hides the architecture."""
    idle = []
    for row, places in allowed().items():
        if row == "*":
            continue
        mine = [name for name in modules() if row_of(name, allowed()) == row]
        imported = set().union(*(graph()[name] for name in mine)) if mine else set()
        idle += [
            f"{row}: {place}"
            for place in places
            if not any(is_within(name, place) for name in imported)
        ]

    assert not idle, "\n".join(idle)


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert cycles(graph()) == []


LOADS = {dotted(place): names for place, names in rows("What is never loaded").items()}


def starts(place: str) -> list[str]:
    return [name for name in modules() if is_within(name, place)]


def test_nothing_is_loaded_that_must_not_be() -> None:
    wrong = []
    for place, names in LOADS.items():
        for start in starts(place):
            chains = closure(start, graph())
            for name in map(dotted, names):
                wrong += [
                    " -> ".join(chain)
                    for loaded, chain in chains.items()
                    if is_within(loaded, name)
                ]

    assert LOADS
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("start", ["jobs.role", "workers.main"])
def test_a_role_loads_no_server_of_another_role(start: str) -> None:
    """In a fresh interpreter, which also sees what packages from outside load."""
    names = [dotted(name) for name in LOADS[start]]
    program = (
        f"import {start}, sys\n"
        f"names = {names!r}\n"
        "print([m for m in sys.modules if any(m == n or m.startswith(n + '.') for n in names)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


# The checks themselves


def test_an_import_through_two_others_is_found() -> None:
    edges = {"jobs.role": {"shared.a"}, "shared.a": {"api.b"}, "api.b": {"uvicorn"}}

    assert closure("jobs.role", edges)["uvicorn"] == ["jobs.role", "shared.a", "api.b", "uvicorn"]


def test_the_package_above_a_module_is_loaded_with_it() -> None:
    edges = {"workers.run": {"shared.log.x"}, "shared.log.x": set(), "shared.log": {"arq"}}

    assert "arq" in closure("workers.run", edges)


def test_a_circle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
