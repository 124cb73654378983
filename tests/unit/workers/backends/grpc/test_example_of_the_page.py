"""The server in Python of docs/backends.md answers, with the code that protoc makes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Token
from shared.log.request import Request
from tests.support.redis_server import free_port
from tests.support.wait import until
from workers.backends import build_backends
from workers.backends.grpc.status import STATUSES

pytestmark = pytest.mark.usefixtures("one_loop")

ROOT = Path(__file__).parents[5]
BLOCK = re.compile(r"## `grpc`.*?```python\n(.*?)```", re.S)
FILE = "tailrace/backend/v1/backend.proto"


def compile_for(folder: Path) -> None:
    outs = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    protoc = (sys.executable, "-m", "grpc_tools.protoc")
    subprocess.run([*protoc, f"--proto_path={ROOT / 'proto'}", *outs, FILE], check=True)


async def test_the_server_of_the_page_answers_and_continues(tmp_path: Path) -> None:
    await asyncio.to_thread(compile_for, tmp_path)
    block = BLOCK.search((ROOT / "docs" / "backends.md").read_text())
    assert block is not None
    port = free_port()
    code = block[1].replace("127.0.0.1:9005", f"127.0.0.1:{port}")
    # A process of its own: two copies of the same messages cannot be loaded into one.
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"{code}\nimport asyncio\nasyncio.run(main())"), cwd=tmp_path
    )
    model = Model(name="m", backend="grpc", base_url=f"grpc://127.0.0.1:{port}")
    backend = build_backends({"m": model}, Settings(), {})["m"]
    asked = Request([{"role": "user", "content": "Hello dear world"}])

    async def is_up() -> bool:
        try:
            await answer("")
        except BackendError as error:
            assert error.is_outage
            return False
        return True

    async def answer(prefix: str) -> str:
        stream = backend.stream(asked, prefix=prefix, seed="s", form="")
        items = [item async for items in stream for item in items]
        return "".join(item.text for item in items if isinstance(item, Token))

    try:
        await until(is_up, 20, "the server of the page")
        assert await answer("") == "Hello dear world "
        assert await answer("Hello dear") == " world "
    finally:
        await backend.aclose()
        server.kill()
        await server.wait()


def test_the_page_names_every_status() -> None:
    page = (ROOT / "docs" / "backends.md").read_text()
    assert [name for name in (*STATUSES, "UNIMPLEMENTED") if f"`{name}`" not in page] == []
