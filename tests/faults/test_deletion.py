"""Deletion with real processes: on every node at once, for readers, workers, Redis and files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.demo import demo_body
from tests.support.processes import Deployment, start_module
from tests.support.redis_contents import everything
from tests.support.wait import until

MARK = "marzipan-marker"
DEADLINE_S = 20.0


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        yield client


async def start(client: aiohttp.ClientSession, url: str, tokens: int, per_s: float) -> str:
    body = {**demo_body(tokens, per_s), "prompt": MARK, "session": MARK}
    body.pop("messages", None)
    async with client.post(f"{url}/v1/generations", json=body) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["id"])


class Reader:
    """One NDJSON reader, in a task."""

    def __init__(self, client: aiohttp.ClientSession, url: str, generation_id: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._url = f"{url}/v1/generations/{generation_id}/events"
        self.task = asyncio.create_task(self._read(client))

    async def _read(self, client: aiohttp.ClientSession) -> None:
        async with client.get(self._url, headers={"accept": "application/x-ndjson"}) as response:
            async for line in response.content:
                if line.strip():
                    self.events.append(json.loads(line))


async def status(client: aiohttp.ClientSession, url: str, path: str) -> int:
    async with client.get(url + path) as response:
        await response.read()
        return response.status


async def test_node_b_deletes_what_node_a_streams(deployment: Deployment) -> None:
    node_a, node_b = deployment.urls
    async with session() as client, aclosing(deployment.redis()) as redis:
        generation_id = await start(client, node_a, 2_000, 40)
        readers = [Reader(client, url, generation_id) for url in (node_a, node_a, node_b)]
        await until(lambda: all(len(each.events) > 5 for each in readers), DEADLINE_S, "events")

        async with client.delete(f"{node_b}/v1/generations/{generation_id}") as response:
            assert response.status == 200, await response.text()
        await asyncio.gather(*(each.task for each in readers))

        for reader in readers:
            assert [event["type"] for event in reader.events].count("end") == 1
            end = reader.events[-1]
            assert (end["status"], end["error"]["code"]) == ("cancelled", "deleted")
        for url in (node_a, node_b):
            assert await status(client, url, f"/v1/generations/{generation_id}/events") == 404
            assert await status(client, url, f"/v1/generations/{generation_id}") == 404
        assert MARK not in await everything(redis)

        async def is_idle() -> bool:
            async with client.get(f"{node_a}/v1/workers") as response:
                workers = (await response.json())["workers"]
            return not any(worker["running"] for worker in workers)

        await until(is_idle, DEADLINE_S, "the worker has stopped")
        assert MARK not in await everything(redis), "the worker wrote nothing back"


async def test_no_node_serves_a_deleted_answer_while_redis_is_away(deployment: Deployment) -> None:
    node_a, node_b = deployment.urls
    async with session() as client:
        kept, deleted = [await start(client, node_a, 5, 0) for _ in range(2)]
        for generation_id in (kept, deleted):
            reader = Reader(client, node_a, generation_id)
            await reader.task
            assert reader.events[-1]["status"] == "completed"

        async with client.delete(f"{node_b}/v1/generations/{deleted}") as response:
            assert response.status == 200

        async def is_gone() -> bool:
            return await status(client, node_a, f"/v1/generations/{deleted}/events") == 404

        await until(is_gone, DEADLINE_S)
        deployment.server.freeze()
        try:
            found = [
                await status(client, node_a, f"/v1/generations/{each}/events")
                for each in (kept, deleted)
            ]
        finally:
            deployment.server.thaw()
    assert found == [200, 503], "the copy of the other one shows that copies are served"


async def test_forgetting_an_owner_leaves_no_marked_word_anywhere(deployment: Deployment) -> None:
    (url, _), lines = deployment.urls, []
    for number in range(20):
        body = {"prompt": f"{MARK} {number}", "metadata": {"a": MARK}}
        line = {"custom_id": f"{MARK}-{number}", "method": "POST", "url": "/v1/generations"}
        lines.append(json.dumps({**line, "body": body}))
    async with session() as client, aclosing(deployment.redis()) as redis:
        for tokens in (3, 2_000):
            await start(client, url, tokens, 40)
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", "\n".join(lines), filename=f"{MARK}.jsonl")
        async with client.post(f"{url}/v1/files", data=form) as response:
            file_id = (await response.json())["id"]
        batch = {"input_file_id": file_id, "endpoint": "/v1/generations", "completion_window": "1h"}
        async with client.post(f"{url}/v1/batches", json=batch) as response:
            assert response.status == 200, await response.text()
        plan = {"prompt": MARK, "cron": "0 8 * * *", "session": MARK}
        async with client.post(f"{url}/v1/generations", json=plan) as response:
            assert response.status == 202, await response.text()
        assert MARK in await everything(redis) and MARK in objects(deployment.directory)

        output = deployment.directory / "said"
        words = ["forget", "anonymous", "--yes", "--url", url]
        command = start_module("cli.main", words, env=os.environ, output=output)
        await until(lambda: command.poll() is not None, DEADLINE_S, "the end of the command")

        said = output.read_text()
        assert command.returncode == 0 and "schedules" in said and "files" in said

        async def is_clean() -> bool:
            return MARK not in await everything(redis) and MARK not in objects(deployment.directory)

        await until(is_clean, DEADLINE_S, "no word is left")
        left = await everything(redis)
        assert "anonymous" not in left, "no key names the owner"


def objects(directory: Path) -> str:
    """The names and contents of the files of the roles."""
    found = [path for path in (directory / "files").rglob("*") if path.is_file()]
    return "\n".join(f"{path} {path.read_bytes()!r}" for path in found)
