"""The OpenAPI document is kept: schemathesis reads it and drives a running node by it.

Each operation gets valid and invalid requests, the borders of every schema, and methods that it
does not have. What comes back must have a documented status, content type, headers and body;
nothing is a 500; what the document allows is taken and what it forbids is refused. The cases are
the same in every run. A failure prints the requests as curl commands.

Runs as a process of its own: its pytest plugin would slow down every other test by seconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.raw_client import RawClient

CONFIG = Path(__file__).with_name("schemathesis.toml")
QUICK = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 0\n'
RUN_S = 900.0  # it takes two minutes, and many times that on a slow and busy machine


async def test_a_node_behaves_as_its_openapi_document_says(own_deployment, tmp_path: Path):
    async with own_deployment(api=1, workers=1, models=QUICK) as deployment:
        node = deployment.api[0]
        pid = node.pid
        async with RawClient(node.url) as api:
            paths = (await api.get("/openapi.json")).json()["paths"]
        count = sum(len(methods) for methods in paths.values())
        code, said = await schemathesis(f"{node.url}/openapi.json", tmp_path)

        assert code == 0, f"{said}\n{deployment.report()}"
        # GET and HEAD of the console, whose stream does not end, and the methods of gRPC.
        assert f"{count - 2 - 6} selected / {count} total" in said, said
        assert "No issues found" in said, said
        assert node.is_running and node.pid == pid
        assert "request failed" not in node.stderr()


async def schemathesis(url: str, directory: Path) -> tuple[int | None, str]:
    """Run it to its end; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
        "run", url, "--no-color",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": ""},
        cwd=directory,  # it leaves files where it runs
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RUN_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode(errors="replace")
