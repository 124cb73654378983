"""Runs of pytest in three forked processes, on files whose tests pass, fail or end the process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")

CONFTEST = """
import os, pathlib, pytest
from tests.support.forked_run import ForkedRun

def pytest_configure(config):
    config.pluginmanager.register(ForkedRun(3))
    pathlib.Path("first").write_text(str(os.getpid()))

@pytest.fixture(scope="session", autouse=True)
def session_of_process():
    yield
    with open("ended", "a") as file:
        print(os.getpid(), file=file)

@pytest.fixture(autouse=True)
def place(request):
    with open("places", "a") as file:
        print(request.node.nodeid, os.getpid(), file=file)
"""
FILES = {
    "passes": """
import pytest

@pytest.mark.parametrize("n", range(20))
def test_is(n): print("said", n)
""",
    "fails": """
def test_is_false():
    print("said by the failure")
    assert 1 == 2
""",
    "dies": """
import os, signal
def test_before(): pass
def test_that_ends(): os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
""",
    "leaves": """
def test_that_leaves_a_file_open(tmp_path):
    circle = []
    circle.append((circle, open(tmp_path / "file", "w")))
""",
    "errors": """
import pytest
@pytest.fixture
def broken(): raise ValueError
def test_with_a_broken_fixture(broken): pass
""",
}


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(CONFTEST)
    for name, text in FILES.items():
        (directory / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:hypothesispytest", "-p", "no:anyio"]
    return subprocess.run(
        [
            *command,
            "-p",
            "no:cacheprovider",
            "-p",
            "no:schemathesis",
            "-rA",
            "-W",
            "error",
            *options,
        ],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_run_in_processes_reports_as_a_run_in_one(tmp_path: Path) -> None:
    said = run(tmp_path)
    places = dict(line.split() for line in (tmp_path / "places").read_text().splitlines())
    ended = (tmp_path / "ended").read_text().split()

    assert said.returncode == pytest.ExitCode.TESTS_FAILED, said.stdout
    assert len(re.findall(r"^PASSED test_passes\.py", said.stdout, re.M)) == 20
    assert "FAILED test_fails.py::test_is_false - assert 1 == 2" in said.stdout
    assert "said by the failure" in said.stdout
    assert "ERROR test_errors.py::test_with_a_broken_fixture - ValueError" in said.stdout
    # the death of a process costs one test
    assert f"the process of this test ended with {-signal.SIGKILL}" in said.stdout
    assert "ERROR test_dies.py::test_that_ends" in said.stdout
    assert "PASSED test_dies.py::test_before" in said.stdout
    assert "PASSED test_dies.py::test_after" in said.stdout
    # also what the garbage collector finds at the end
    assert "ResourceWarning: unclosed file" in said.stdout
    assert "1 failed, 23 passed, 3 errors" in said.stdout
    # a file stays in one process, which ends its fixtures; the first process runs no test
    assert len({pid for test, pid in places.items() if "passes" in test}) == 1
    assert (tmp_path / "first").read_text() not in places.values()
    killed = places["test_dies.py::test_that_ends"]
    assert sorted(ended) == sorted(set(places.values()) - {killed})


def test_warnings_of_tests_and_of_the_collection_are_listed_once(tmp_path: Path) -> None:
    warns = """
import warnings
warnings.warn("said at import")
def test_that_warns(): warnings.warn("said in a test")
"""
    (tmp_path / "test_warns.py").write_text(warns)

    said = run(tmp_path, "-W", "default::UserWarning", "test_warns.py", "test_passes.py")

    assert said.returncode == pytest.ExitCode.OK, said.stdout + said.stderr
    assert said.stdout.count("Warning: said at import") == 1
    assert said.stdout.count("UserWarning: said in a test") == 1
    assert "21 passed, 2 warnings" in said.stdout


def test_x_ends_all_processes_after_the_first_failure(tmp_path: Path) -> None:
    said = run(tmp_path, "-x", "test_fails.py", "test_passes.py")

    assert said.returncode == pytest.ExitCode.TESTS_FAILED, said.stdout
    assert "stopping after 1 failures" in said.stdout
    ended = (tmp_path / "ended").read_text().split()
    places = {line.split()[1] for line in (tmp_path / "places").read_text().splitlines()}
    assert sorted(ended) == sorted(places)
