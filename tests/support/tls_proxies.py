"""Real proxies with the configurations of deploy/ and TLS, before nodes of a test.

Only names of nodes, ports, paths and the certificate are replaced: every other line is the one that
a deployment runs. A replacement that finds nothing to replace is an error.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.nginx import TEMPORARY, replaced
from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROGRAMS = {"nginx": "nginx-light", "caddy": "caddy", "haproxy": "haproxy"}  # Debian's packages
START_S = 20.0


class TlsProxy:
    """One of `PROGRAMS` on a free port of localhost. Use as an async context manager.

    Args:
        ports: of the nodes; as many as the shipped configuration names.
    """

    def __init__(self, name: str, ports: Sequence[int]) -> None:
        self.name, self.port = name, free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="trx-"))
        self.authority = Authority(self.directory)
        self.cert, self.key = self.authority.sign_for_years("localhost", 2020, 2090)
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def __aenter__(self) -> TlsProxy:
        path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
        program = shutil.which(self.name, path=path)
        assert program, f"no {self.name} here: apt-get install {PROGRAMS[self.name]}"
        output = self.directory / "out"
        env = {"PATH": path, "HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)}
        self._process = spawn([program, *self._arguments()], env=env, output=output)
        try:
            await until(self._is_listening, START_S, self.name)
        except AssertionError as exc:
            said = output.read_text()
            self._close()
            raise AssertionError(f"{exc}\n{said}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def _arguments(self) -> list[str]:
        folder = self.directory
        if self.name == "nginx":
            (folder / "tls").mkdir()
            tls = _moved("nginx-tls.conf", [("listen 443", f"listen 127.0.0.1:{self.port}")])
            tls = replaced(tls, "/etc/nginx/tls/tls.crt", self.cert)
            tls = replaced(tls, "/etc/nginx/tls/tls.key", self.key)
            (folder / "tls" / "tls.conf").write_text(tls)
            temporary = "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY)
            config = _moved(
                "nginx.conf",
                [
                    ("http {\n", "http {\n" + temporary),
                    ("pid /tmp/nginx.pid;", f"pid {folder}/nginx.pid;"),
                    ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
                    ("/etc/nginx/tailrace/*.conf", f"{folder}/tls/*.conf"),
                ],
            )
            main = f"daemon off; user {getpass.getuser()};"
            return ["-p", str(folder), "-c", self._written(config), "-g", main]
        if self.name == "caddy":
            pair = f"{self.cert} {self.key}"
            site = f"https://localhost:{self.port} {{\n\tbind 127.0.0.1\n\ttls {pair}\n"
            # Without this Caddy also listens on port 80, to redirect.
            options = "admin off\n\tauto_https disable_redirects\n"
            config = _moved(
                "Caddyfile",
                [("tailrace.example.org {\n", site), ("admin off\n", options)],
            )
            return ["run", "--adapter", "caddyfile", "--config", self._written(config)]
        pem = folder / "tls.pem"
        pem.write_bytes(Path(self.cert).read_bytes() + Path(self.key).read_bytes())
        bind = f"bind 127.0.0.1:{self.port} ssl crt {pem}"
        config = _moved("haproxy.cfg", [("bind :443 ssl crt /etc/haproxy/tls.pem", bind)])
        return ["-db", "-f", self._written(config)]

    def _written(self, config: str) -> str:
        for number, port in enumerate(self._ports, 1):
            config = replaced(config, f"api-{number}:8000", f"127.0.0.1:{port}")
        path = self.directory / "configuration"
        path.write_text(config)
        return str(path)

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _close(self) -> None:
        if self._process is not None:
            kill_group(self._process)
        shutil.rmtree(self.directory, ignore_errors=True)


def _moved(name: str, changes: Sequence[tuple[str, str]]) -> str:
    text = (DEPLOY / name).read_text()
    for old, new in changes:
        text = replaced(text, old, new)
    return text
