"""A real nginx with the configuration that is shipped, before nodes of a test.

Only the names of the nodes, the port and the paths that nginx writes to are replaced: every other
line is the one that a deployment runs. A replacement that finds nothing to replace is an error, so
that a change of the configuration cannot pass the tests by.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

SHIPPED = Path(__file__).resolve().parents[2] / "deploy" / "nginx.conf"
FOR_GRPC = SHIPPED.with_name("nginx-grpc.conf")
MISSING = "no nginx here: apt-get install nginx-light"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
START_S = 10.0


class Nginx:
    """nginx before the nodes at `ports` of this machine. Use as an async context manager.

    Args:
        ports: of the nodes; as many as the shipped configuration names.
        shipped: the configuration.
    """

    def __init__(self, ports: Sequence[int], shipped: Path = SHIPPED) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="trx-"))
        self._config = self._directory / "nginx.conf"
        self._config.write_text(substituted(shipped.read_text(), ports, self))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """Where nginx may write."""
        return self._directory

    async def __aenter__(self) -> Nginx:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        assert program, MISSING
        output = self._directory / "out"
        main = f"daemon off; user {getpass.getuser()};"
        argv = [program, "-p", str(self._directory), "-c", str(self._config), "-g", main]
        self._process = spawn(argv, env={"PATH": os.environ["PATH"]}, output=output)
        try:
            await until(self._is_listening, START_S, "nginx")
        except AssertionError as exc:
            self._close()
            raise AssertionError(f"{exc}\n{output.read_text()}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def _is_listening(self) -> bool:
        text = Path("/proc/net/tcp").read_text()
        return f":{self.port:04X} 00000000:0000 0A" in text

    def _close(self) -> None:
        if self._process is not None:
            kill_group(self._process)
        shutil.rmtree(self._directory, ignore_errors=True)


def substituted(text: str, ports: Sequence[int], nginx: Nginx) -> str:
    """Return the configuration with this machine's ports and paths."""
    is_grpc = "grpc_pass" in text
    node_port, listen, pid = (9000, "9000", "-grpc") if is_grpc else (8000, "80", "")
    for number, port in enumerate(ports, 1):
        text = replaced(text, f"server api-{number}:{node_port}", f"server 127.0.0.1:{port}")
    assert "server api-" not in text, "the configuration names more nodes than the test has"
    directory = nginx.directory
    temporary = "".join(f"{name}_temp_path {directory}/{name};\n" for name in TEMPORARY)
    text = replaced(text, "http {\n", "http {\n" + temporary)
    text = replaced(text, f"pid /tmp/nginx{pid}.pid;", f"pid {directory}/nginx.pid;")
    ending = " http2;" if is_grpc else ";"
    return replaced(text, f"listen {listen}{ending}", f"listen 127.0.0.1:{nginx.port}{ending}")


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"once in the configuration: {old}"
    return text.replace(old, new)
