"""SIGTERM while a role is still loading its modules, as process 1 of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WAIT_S = 20.0
UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")
# Sends SIGTERM to itself in the middle of the imports of a role.
PROGRAM = """
import os, signal, sys
if {pretends}:
    os.getpid = lambda pid=os.getpid(): 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as the kernel does for process 1
class Finder:
    def find_spec(name, *_):
        if name == {module!r}:
            signal.raise_signal(signal.SIGTERM) if {pretends} else os.kill(1, signal.SIGTERM)
sys.meta_path.insert(0, Finder)
sys.path.insert(0, {root!r})
from cli.main import main
sys.exit(main([{role!r}]))
"""


@cache
def can_unshare() -> bool:
    try:
        done = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    except OSError:  # no such command
        return False
    return done.returncode == 0


@pytest.mark.parametrize("is_real", [False, True], ids=["pretended", "in a namespace"])
@pytest.mark.parametrize(
    ("role", "module"),
    [("worker", "argparse"), ("api", "uvicorn"), ("worker", "workers.worker"), ("jobs", "arq")],
)
def test_a_role_that_is_process_1_obeys_while_it_loads(
    role: str, module: str, is_real: bool, tmp_path: Path
) -> None:
    if is_real and not can_unshare():
        pytest.skip("needs unshare and the right to make a namespace")
    program = PROGRAM.format(pretends=not is_real, module=module, role=role, root=str(ROOT))
    environ = {**os.environ, "TAILRACE_REDIS_URL": f"unix://{tmp_path}/no.sock"}
    done = subprocess.run(
        [*(UNSHARE if is_real else ()), sys.executable, "-P", "-c", program],
        env=environ | {"TAILRACE_PORT": "0"},
        cwd=tmp_path,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )

    assert done.returncode == 143, done.stderr.decode()
