"""Real model servers with a real model, as processes: for tests/models.

The programs are installed outside the tree by tests/models/install.sh. Each server can be killed
and started again at the same address.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.redis_server import free_port
from tests.support.wait import until

START_S = 120.0
Record = Callable[[str, str, str], None]  # notes an outcome: check, model, words for the table
CACHE = Path(os.environ.get("TEST_MODELS_CACHE") or Path.home() / ".cache" / "tailrace-models")


class ServerEnded(Exception):
    """A server that should have become ready has ended; waiting on would not help."""


class ModelServer:
    """A process that serves a model. Use with `async with`.

    Attributes:
        base_url: for OpenAI's clients, up to and with /v1.
        health: the path that answers 200 when the server can be used.
    """

    health = "/health"

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.output = directory / f"{type(self).__name__}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def argv(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        return {}

    async def start(self) -> None:
        """Start, and return when the server can be used."""
        self._launch()
        await until(self._is_healthy, START_S, f"{type(self).__name__} ready")

    def _launch(self) -> None:
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv(),
                env={**os.environ, **self.environ()},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL, and reap."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    async def __aenter__(self) -> ModelServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.kill()

    async def get(self, path: str) -> Any:
        """Return the JSON of a path of the server's root."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            response.raise_for_status()
            return await response.json(content_type=None)

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for a whole answer, without Tailrace."""
        url = f"{self.base_url}/chat/completions"
        async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer

    async def _is_healthy(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise ServerEnded(self.output.read_text()[-4_000:])
        try:
            await self.get(self.health)
        except aiohttp.ClientError:
            return False
        return True


class LlamaServer(ModelServer):
    """llama.cpp's server with one model and two slots."""

    def __init__(self, directory: Path, program: Path, model: str) -> None:
        super().__init__(directory)
        self._program, self._model = program, model

    def argv(self) -> list[str]:
        return [
            *(str(self._program), "--model", self._model, "--alias", "smollm2"),
            *("--port", str(self.port), "--ctx-size", "2048", "--parallel", "2"),
            *("--threads", "2", "--no-webui", "--jinja"),
        ]

    def environ(self) -> dict[str, str]:
        return {"OMP_WAIT_POLICY": "passive"}  # other processes need the cores, too

    async def is_computing(self) -> bool:
        return any(slot["is_processing"] for slot in await self.get("/slots"))


class LiteLlm(ModelServer):
    """LiteLLM's proxy before another server."""

    health = "/health/liveliness"

    def __init__(self, directory: Path, program: Path, upstream: str) -> None:
        super().__init__(directory)
        self._program = program
        self._config = directory / "litellm.json"
        parameters = {"model": "openai/smollm2", "api_base": upstream, "api_key": "none"}
        models = [{"model_name": "smollm2", "litellm_params": parameters}]
        config = {
            "model_list": models,
            "litellm_settings": {"num_retries": 0, "telemetry": False},
            # It listens on this machine only.
            "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
        }
        self._config.write_text(json.dumps(config))

    def argv(self) -> list[str]:
        where = ("--host", "127.0.0.1", "--port", str(self.port))
        return [str(self._program), "--config", str(self._config), *where, "--num_workers", "1"]

    def environ(self) -> dict[str, str]:
        return {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would load a file from the network


class Ollama(ModelServer):
    """Ollama with the model imported from its file."""

    health = "/api/version"

    def __init__(self, directory: Path, program: str, model: str) -> None:
        super().__init__(directory)
        self._program = program
        self._directory = directory
        self._model = model

    def argv(self) -> list[str]:
        return [self._program, "serve"]

    def environ(self) -> dict[str, str]:
        host = f"127.0.0.1:{self.port}"
        return {"OLLAMA_HOST": host, "OLLAMA_MODELS": str(self._directory / "ollama")}

    async def start(self) -> None:
        await super().start()
        await asyncio.to_thread(self._create)

    def _create(self) -> None:
        recipe = self._directory / "Modelfile"
        recipe.write_text(f"FROM {self._model}\n")
        command = [self._program, "create", "smollm2", "-f", str(recipe)]
        subprocess.run(command, check=True, env={**os.environ, **self.environ()})


def packaged_model() -> str:
    """Return the path of SmolLM2-135M, which `make local` installs."""
    from shared.config.local_models import find_file

    file, missing = find_file("smollm2", "")
    assert not missing, missing
    return file


def version_of(python: Path, package: str) -> str:
    """Return the version of a package that another Python has."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.check_output([python or sys.executable, "-c", code], text=True).strip()
