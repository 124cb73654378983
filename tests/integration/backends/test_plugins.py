"""Plug-ins in a real worker: one that misbehaves hurts only its own generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.processes import Deployment
from tests.support.wait import until

DEADLINE_S = 30.0
MODELS = "".join(
    f'[models.{name}]\nbackend = "tests.support.plugin_examples:{name}"\n'
    for name in ("Echo", "Blocks", "Rubbish", "Raises", "Endless")
)
SETTINGS = {"attempts_max": "1", "upstream_idle_s": "3", "upstream_first_token_s": "60"}


async def ended(client: Client, generation_id: str) -> dict[str, Any]:
    async def end() -> dict[str, Any] | None:
        snapshot = await client.snapshot(generation_id)
        return snapshot if snapshot["status"] in ("completed", "failed") else None

    found = await until(end, DEADLINE_S, f"the end of {generation_id}")
    assert found is not None
    return found


async def test_a_plugin_that_misbehaves_hurts_only_its_own_generation(tmp_path: Path) -> None:
    async with (
        Deployment(api=1, workers=1, models=MODELS, settings=SETTINGS, lease_s=0.8) as deployment,
        Client(deployment.urls) as client,
    ):

        async def ask(model: str) -> str:
            prompt = str(tmp_path / "go") if model == "Blocks" else "to be"
            return str((await client.start({"model": model, "prompt": prompt}))["id"])

        bad = {name: await ask(name) for name in ("Blocks", "Rubbish", "Raises", "Endless")}
        good = [await ended(client, await ask("Echo")) for _ in range(5)]
        await ended(client, bad["Endless"])  # several leases later
        blocked = (await client.snapshot(bad["Blocks"]))["status"]
        (tmp_path / "go").touch()
        ends = {name: await ended(client, each) for name, each in bad.items()}
        again = await ended(client, await ask("Echo"))
        is_running = deployment.workers[0].is_running

    assert [one["text"] for one in [*good, again]] == ["tobe"] * 6
    assert blocked == "running" and is_running
    # No lease was lost: the first attempt of each has ended.
    assert {one["attempt"] for one in [*good, *ends.values()]} == {1}
    assert ends["Blocks"]["status"] == "completed"
    codes = {name: end["error"]["code"] for name, end in ends.items() if name != "Blocks"}
    assert set(codes.values()) <= {"upstream_error", "upstream_timeout", "attempts_exhausted"}
    assert "the plug-in yielded an object of the type int" in ends["Rubbish"]["error"]["message"]
