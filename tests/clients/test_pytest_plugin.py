"""The fixture `tailrace_url` of `tailrace_client`, as an application uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.scenarios import PYTHON_PACKAGE

PROGRAM = """
from tailrace_client import Tailrace


def test_an_answer(tailrace_url):
    with Tailrace(tailrace_url) as client:
        demo = {"tokens": 20, "tokens_per_s": 0}
        answer = client.generate(prompt="Hi", params={"demo": demo})
        assert answer.result().status == "completed"
"""


def test_an_application_gets_a_server_for_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_application.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tailrace_client.pytest_plugin", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PYTHON_PACKAGE), "TAILRACE_PORT": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert "1 passed" in done.stdout, done.stdout + done.stderr
