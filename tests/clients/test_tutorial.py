"""docs/tutorial.md as a reader follows it: each of its commands is run, in its order.

Only the ports are other ones, because tests run beside each other, and `make up` is the command
that it runs. A comment before a block says that it keeps running.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Browser, Page
from tests.support.redis_server import find_binary, free_ports
from tests.support.spawn import kill_group
from tests.support.wait import until, until_sync

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
STEP = re.compile(r"(?:<!-- (server|stop): (\w+) -->\n)?(?:```(sh|python)\n(.*?)```)?", re.DOTALL)
READY = {"up": "Tailrace is ready", "nodes": "Tailrace is ready", "nginx": "", "app": ""}
SOON_S = 60.0


class Reader:
    """Somebody who runs the commands of the page in a folder of the project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        nodes = free_ports(2)
        self.ports = {8000: nodes, 8001: nodes + 1, 8080: free_ports(1), 9000: free_ports(1)}
        for name in ("deploy", "examples", "Makefile", "clients"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "bin").mkdir()
        (folder / "bin" / "redis-server").symlink_to(find_binary())
        kept = {name: value for name, value in os.environ.items() if "TAILRACE" not in name}
        path = f"{folder / 'bin'}:{kept['PATH']}"
        self.environ = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        self.environ["TAILRACE_URL"] = f"http://127.0.0.1:{nodes}"
        self.environ |= {"TAILRACE_MODELS_DISCOVER": "off", "TAILRACE_DRAIN_S": "1"}

    def here(self, text: str) -> str:
        """Return commands with the ports of this test."""
        for port, own in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(own), text)
        return text.replace("make up", f".venv/bin/tailrace up --port {self.ports[8000]}")

    def run(self, commands: str) -> str:
        """Run a block to its end, with the variables of the blocks before; return its output."""
        load = "[ ! -f .state ] || . ./.state 2>/dev/null || true"
        keep = "declare -p id TOKEN 2>/dev/null > .state || true"
        script = f"{load}; set -eu; {self.here(commands)}\n{keep}"
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environ, capture_output=True,
            timeout=SOON_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout.decode()}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def start(self, name: str, commands: str) -> None:
        output = self.folder / f"{name}.out"
        with output.open("wb") as sink:
            self.servers[name] = subprocess.Popen(
                ["bash", "-c", f"set -eu; {self.here(commands)}"],
                **{"cwd": self.folder, "env": self.environ, "stdin": subprocess.DEVNULL},
                **{"stdout": sink, "stderr": sink, "start_new_session": True},
            )

        def is_up() -> bool:
            assert self.servers[name].poll() is None, output.read_text()
            if READY[name]:
                return READY[name] in output.read_text()
            port = self.ports[8080 if name == "nginx" else 9000]
            probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}"]
            return subprocess.run(probe, capture_output=True, check=False).returncode == 0

        until_sync(is_up, SOON_S, f"{name} is ready")

    def stop(self, name: str) -> None:
        process = self.servers.pop(name)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGINT if name in ("up", "nodes") else signal.SIGTERM)
        try:
            process.wait(SOON_S)
        finally:
            kill_group(process)

    def pid(self, child: str) -> int:
        """Return the process id that `up` has printed for a child."""
        text = (self.folder / "nodes.out").read_text()
        return int(re.findall(rf"{child} \(pid (\d+)\) is ready", text)[-1])


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Follow the page from its begin to its end; the servers of the last steps go on."""
    reader = Reader(tmp_path_factory.mktemp("tutorial"))
    try:
        for match in STEP.finditer(TUTORIAL):
            kind, name, language, text = match.groups()
            if kind == "stop":
                reader.stop(name)
            elif kind == "server":
                reader.start(name, text)
            elif language == "sh":
                reader.said.append(reader.run(text))
        yield reader
    finally:
        for name in list(reader.servers):
            reader.stop(name)
        shutil.rmtree(reader.folder, ignore_errors=True)


def output_with(reader: Reader, words: str) -> str:
    return next(said for said in reader.said if words in said)


def test_every_block_of_the_page_is_run(reader: Reader) -> None:
    blocks = TUTORIAL.count("```sh\n")
    servers = TUTORIAL.count("<!-- server:")

    assert len(reader.said) == blocks - servers
    assert reader.servers.keys() == {"nodes", "nginx", "app"}


def test_an_answer_goes_on_without_its_reader(reader: Reader) -> None:
    assert reader.said[0].count('"id":"1-') == 5
    assert "gen_" in output_with(reader, "WORKER ")


def test_nginx_asks_for_a_token_and_any_node_has_the_rest(reader: Reader) -> None:
    first = output_with(reader, "401")

    assert first.splitlines()[0] == "401"
    assert first.count('"id":"1-') == 7
    assert '"type":"end"' in reader.said[-1] and '"completed"' in reader.said[-1]


async def test_the_front_end_survives_a_node_and_a_worker(reader: Reader, browser: Browser) -> None:
    page = await browser.open(f"http://127.0.0.1:{reader.ports[9000]}/")
    await page.fill("[name=user]", "ann")
    await page.fill("[name=password]", "ann-password")
    await page.press("Enter")
    await page.until("!document.querySelector('#ask').hidden", "signed in")
    await page.fill("[name=prompt]", "What survives?")
    await page.press("Enter")
    await receives(page, 100)
    os.kill(reader.pid(f"api {reader.ports[8000]}"), signal.SIGKILL)
    os.kill(reader.pid(f"api {reader.ports[8001]}"), signal.SIGKILL)
    await receives(page, 250)
    os.kill(reader.pid("worker 1"), signal.SIGKILL)
    os.kill(reader.pid("worker 2"), signal.SIGKILL)
    state = "document.querySelector('#state').textContent"
    await page.until(f"{state} === 'completed'", "the end", SOON_S)
    shown = await page.evaluate("document.querySelector('#answer').textContent")
    snapshot = reader.run(
        'curl -s "http://127.0.0.1:8080/v1/generations?limit=1" -H "authorization: Bearer $TOKEN"'
    )
    newest = re.findall(r"gen_[0-9a-z]+", snapshot)[0]
    whole = reader.run(
        f'curl -s "http://127.0.0.1:8080/v1/generations/{newest}" '
        '-H "authorization: Bearer $TOKEN" | .venv/bin/python -c '
        "'import json, sys; sys.stdout.write(json.load(sys.stdin)[\"text\"])'"
    )

    assert shown == whole
    assert await page.errors() == []
    await page.close()


async def test_a_wrong_password_gets_no_token(reader: Reader, browser: Browser) -> None:
    page = await browser.open(f"http://127.0.0.1:{reader.ports[9000]}/")
    status = "fetch('/token', {method: 'POST'}).then((answer) => answer.status)"

    assert await page.evaluate(status) == 401
    await page.close()


async def receives(page: Page, characters: int) -> None:
    length = "document.querySelector('#answer').textContent.length"
    await until(lambda: at_least(page, length, characters), SOON_S, f"{characters} characters")


async def at_least(page: Page, script: str, number: int) -> bool:
    return int(await page.evaluate(script)) >= number
