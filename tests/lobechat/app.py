"""LobeChat's application: fetched, installed outside of the project, and served for development.

The package on npm holds the sources of the application. Its dependencies take about 3 GB and its
development server up to 10 GB of memory, so no other test uses it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from base64 import b64encode
from pathlib import Path

import aiohttp

from tests.support.npm import LOBECHAT, tool
from tests.support.wait import until

PACKAGE, SHA512, _ = LOBECHAT
PNPM = "pnpm@10.18.3"
# The application takes this package from a host other than npm's.
OVERRIDES = {"xlsx": "0.18.5"}
# The first page is compiled when it is asked for: 8 minutes on two idle cores, hours on busy ones.
START_S = 14_400.0


def cache() -> Path:
    """Return the directory of the application, which stays from one run to the next."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tailrace-lobechat"


def install() -> Path:
    """Return the root of the installed application. The first call takes about ten minutes.

    Raises:
        AssertionError: the archive is another one.
        subprocess.CalledProcessError: npm or pnpm failed; they have written why.
    """
    root = cache() / "package"
    if (cache() / "installed").exists():
        return root
    shutil.rmtree(cache(), ignore_errors=True)
    cache().mkdir(parents=True)
    npm = [tool("npm"), "--loglevel=error", "--prefix", str(cache() / "pnpm")]
    subprocess.run([tool("npm"), "pack", PACKAGE, "--loglevel=error"], cwd=cache(), check=True)
    subprocess.run([*npm, "install", PNPM], cwd=cache(), check=True)
    (archive,) = cache().glob("*.tgz")
    digest = b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    assert digest == SHA512, f"{PACKAGE} is another archive"
    with tarfile.open(archive) as tar:
        tar.extractall(cache(), filter="data")
    archive.unlink()
    manifest = json.loads((root / "package.json").read_text())
    manifest.setdefault("pnpm", {}).setdefault("overrides", {}).update(OVERRIDES)
    (root / "package.json").write_text(json.dumps(manifest, indent=2))
    binaries = str(cache() / "pnpm" / "node_modules" / ".bin")
    subprocess.run(
        ["pnpm", "install", "--ignore-scripts", "--no-frozen-lockfile"],
        cwd=root,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "CI": "1"},
        check=True,
    )
    (cache() / "installed").touch()
    return root


class LobeChat:
    """The development server of LobeChat. An async context manager.

    Args:
        base_url: of the node, up to and with `/v1`.
    """

    def __init__(self, base_url: str, port: int) -> None:
        self._environ = {
            "OPENAI_API_KEY": "no-key-is-needed",
            "OPENAI_PROXY_URL": base_url,
            "OPENAI_MODEL_LIST": "-all,+demo",
            "ENABLED_OLLAMA": "0",
            "DEFAULT_AGENT_CONFIG": "model=demo;provider=openai",
            "SYSTEM_AGENT": "default=openai/demo",  # writes the titles
            "NEXT_TELEMETRY_DISABLED": "1",
        }
        self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"http://localhost:{port}"

    async def __aenter__(self) -> LobeChat:
        root = await asyncio.to_thread(install)
        program = root / "node_modules" / ".bin" / "next"
        log = (cache() / "server.log").open("wb")
        self._process = await asyncio.create_subprocess_exec(
            str(program), "dev", "--turbopack", "-H", "localhost", "-p", str(self._port),
            cwd=root,
            env={**os.environ, **self._environ},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )  # fmt: skip
        log.close()
        try:
            async with aiohttp.ClientSession() as web:
                await until(lambda: self._answers(web), START_S, "LobeChat's first page")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _answers(self, web: aiohttp.ClientSession) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, f"LobeChat ended; see {cache()}/server.log"
        try:
            async with web.get(f"{self.url}/chat") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
