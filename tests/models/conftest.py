"""Real model servers with a real model, and a table of what they do.

`make models` runs this folder. `make models ARGS=--write-table` also writes the table into
docs/backends.md.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.model_servers import (
    CACHE,
    LiteLlm,
    LlamaServer,
    ModelServer,
    Ollama,
    Record,
    packaged_model,
    version_of,
)
from tests.support.processes import ROOT, Deployment

PAGE = ROOT / "docs" / "backends.md"
TABLE = re.compile(r"(?<=<!-- made by make models -->\n).*?(?=<!-- end -->)", re.S)
TABLES = """
[models.llama]
base_url = "{llama}"
model = "smollm2"
set = {{cache_prompt = false}}

[models.llama-text]
backend = "completions"
base_url = "{llama}"
model = "smollm2"
template = "chatml"
set = {{cache_prompt = false}}

[models.local]
backend = "local"
model = "smollm2"
system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""
BEHIND_LITELLM = """
[models.litellm]
base_url = "{litellm}"
model = "smollm2"

[models.litellm-unknown]
base_url = "{litellm}"
model = "nobody"
"""
BY_OLLAMA = """
[models.ollama]
backend = "ollama"
base_url = "{ollama}"
model = "smollm2"

[models.ollama-unknown]
backend = "ollama"
base_url = "{ollama}"
model = "nobody"
"""
UNKNOWN = """
[models.llama-unknown]
base_url = "{llama}"
model = "nobody"
"""
_outcomes: dict[str, dict[str, str]] = {}  # by check, then by model
_versions: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="models: write docs/backends.md")


def program(name: str) -> Path | None:
    """Return a program that install.sh has noted; None: it could not be installed."""
    note = CACHE / f"{name}.path"
    path = Path(note.read_text().strip()) if note.exists() else None
    return path if path and path.is_file() else None


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def llama(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaServer]:
    path = program("llama-server")
    if path is None:
        pytest.skip("no llama-server was built")
    _versions.append(f"llama.cpp as in llama-cpp-python {path.parts[-4].rpartition('-')[2]}")
    async with LlamaServer(tmp_path_factory.mktemp("llama"), path, packaged_model()) as server:
        assert isinstance(server, LlamaServer)
        yield server


@pytest.fixture(scope="session")
async def others(
    tmp_path_factory: pytest.TempPathFactory, llama: LlamaServer
) -> AsyncIterator[dict[str, ModelServer]]:
    """The other servers that this machine has, by the name of their models."""
    found: dict[str, ModelServer] = {}
    directory = tmp_path_factory.mktemp("others")
    if path := program("litellm"):
        found["litellm"] = LiteLlm(directory, path, llama.base_url)
        _versions.append(f"LiteLLM {version_of(path.parent / 'python', 'litellm')}")
    if ollama := shutil.which("ollama"):
        found["ollama"] = Ollama(directory, ollama, packaged_model())
        _versions.append(_version_of_ollama(ollama))
    for server in found.values():
        await server.start()
    yield found
    for server in found.values():
        server.kill()


def _version_of_ollama(ollama: str) -> str:
    said = subprocess.check_output([ollama, "--version"], text=True)
    return f"Ollama {said.split()[-1]}"


@pytest.fixture(scope="session")
async def deployment(
    llama: LlamaServer, others: dict[str, ModelServer]
) -> AsyncIterator[Deployment]:
    _versions.append(f"cyllama {version('cyllama')}")
    text = TABLES + UNKNOWN
    text += BEHIND_LITELLM if "litellm" in others else ""
    text += BY_OLLAMA if "ollama" in others else ""
    urls = {name: server.base_url for name, server in others.items()}
    if "ollama" in urls:
        urls["ollama"] = urls["ollama"].removesuffix("/v1")
    models = text.format(llama=llama.base_url, **urls)
    async with Deployment(api=1, workers=1, lease_s=2.0, models=models) as deployment:
        for name in ("llama", *others):
            await asyncio.to_thread(_try_continuation, deployment, name)
        yield deployment


def _try_continuation(deployment: Deployment, name: str) -> None:
    """Run the doctor, whose result the workers obey."""
    command = [sys.executable, "-m", "cli.main", "doctor", "--continuation", name]
    env = {**os.environ, **deployment.workers[0].settings}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    forms = re.findall(r"form\s+(\w+): ([\w ]+)", done.stdout)
    said = ", ".join(f"`{form}` {outcome}" for form, outcome in forms)
    _outcomes.setdefault("`doctor --continuation`", {})[name] = said or done.stdout.strip()


@pytest.fixture(scope="session")
def record() -> Record:
    def note(check: str, name: str, outcome: str) -> None:
        _outcomes.setdefault(check, {})[name] = outcome

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the table, and write it into the page if asked and if all tests have passed."""
    text = render()
    terminalreporter.write_line(text)
    if config.getoption("--write-table") and exitstatus == 0:
        page = PAGE.read_text()
        assert TABLE.search(page), f"{PAGE} has no place for the table"
        PAGE.write_text(TABLE.sub(lambda _: f"\n{text}\n\n", page))


def render() -> str:
    names = list(dict.fromkeys(name for row in _outcomes.values() for name in row))
    rows = [["", *(f"`{name}`" for name in names)], ["---"] * (len(names) + 1)]
    rows += [[check, *(row.get(name, "–") for name in names)] for check, row in _outcomes.items()]
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join(["Versions: " + ", ".join(_versions) + ".", "", *lines])
