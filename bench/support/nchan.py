"""nginx with nchan, a push server in C that stores messages in Redis; compared with the node.

Two servers use one Redis: one gets the messages, the other has the readers. So the measured server
only delivers. Each server is a single process, because a worker process would survive the kill of
its master. Debian: `apt-get install nginx libnginx-mod-nchan`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import aiohttp

from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

WHO = "nginx with nchan and Redis"
MISSING = "no nginx with nchan here: apt-get install nginx libnginx-mod-nchan"
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
MODULE = "ngx_nchan_module.so"
# The last message of a stream; no token is equal to it.
END = b'{"end":true}'
CONFIG = """
load_module {module};
daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 600s;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  nchan_shared_memory_size 256M;
  upstream redis {{ nchan_redis_server "redis://127.0.0.1:{redis_port}"; }}
  nchan_message_buffer_length 20000;
  nchan_message_timeout 10m;
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location ~ ^/read/(\\w+)$ {{
      nchan_subscriber eventsource;
      nchan_channel_id $1;
      nchan_redis_pass redis;
      nchan_eventsource_ping_interval {ping_s};
      nchan_subscriber_first_message oldest;
    }}
    location ~ ^/say/(\\w+)$ {{
      nchan_publisher;
      nchan_channel_id $1;
      nchan_redis_pass redis;
    }}
  }}
}}
"""


class Nchan:
    """Both servers. Use `async with`.

    Args:
        ping_s: how often each reader gets a comment; 0: never.
    """

    def __init__(self, redis_port: int, *, ping_s: int = 0) -> None:
        self._redis_port = redis_port
        self._ping_s = ping_s
        self._directory = Path(tempfile.mkdtemp(prefix="trn-"))
        self._servers: list[subprocess.Popen[bytes]] = []

    async def __aenter__(self) -> Nchan:
        try:
            self.port, self.pid = await self._start("readers")
            self._say_port, self.sayer_pid = await self._start("sayer")
        except BaseException:
            self._close()
            raise
        self._http = aiohttp.ClientSession()
        ready: Callable[[], bool | Awaitable[bool]] = self._is_ready
        await until(ready, 10, "nchan's way to Redis")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._close()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    async def say(self, channel: str, data: bytes) -> None:
        """Publish one message."""
        assert await self._is_taken(self._say_port, channel, data), "nchan did not take a message"

    async def _is_ready(self) -> bool:
        """Whether both servers are connected to Redis. Before that they refuse all messages."""
        ports = (self.port, self._say_port)
        return all([await self._is_taken(port, "ready", b"{}") for port in ports])

    async def _is_taken(self, port: int, channel: str, data: bytes) -> bool:
        url = f"http://127.0.0.1:{port}/say/{channel}"
        async with self._http.post(url, data=data) as answer:
            return answer.status < 300

    async def _start(self, name: str) -> tuple[int, int]:
        """Start one server; return its port and its process id."""
        directory, port = self._directory / name, free_port()
        directory.mkdir()
        config = directory / "nginx.conf"
        config.write_text(
            CONFIG.format(
                module=_module(),
                directory=directory,
                port=port,
                redis_port=self._redis_port,
                ping_s=self._ping_s,
            )
        )
        argv = [_program(), "-p", str(directory), "-c", str(config)]
        server = spawn(argv, env={"PATH": os.environ["PATH"]}, output=directory / "out")
        self._servers.append(server)
        try:
            await until(lambda: _is_listening(port), 10, "nginx")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{(directory / 'out').read_text()}") from None
        return port, server.pid

    def _close(self) -> None:
        for server in self._servers:
            kill_group(server)
        shutil.rmtree(self._directory, ignore_errors=True)


def why_missing() -> str:
    """Return what to install; "" if nothing is missing."""
    return "" if _program() and _module() else MISSING


def _program() -> str:
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") or ""


def _module() -> str:
    found: Iterable[Path] = (Path(folder) / MODULE for folder in MODULES)
    return next((str(path) for path in found if path.exists()), "")


def _is_listening(port: int) -> bool:
    text = Path("/proc/net/tcp").read_text()
    return f"0100007F:{port:04X} 00000000:0000 0A" in text
