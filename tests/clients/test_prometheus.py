"""A real Prometheus scrapes all roles: each metric of the dashboard and the alerts is there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.client import Client
from tests.support.processes import Deployment
from tests.support.redis_server import free_port
from tests.support.spawn import kill_group, spawn
from tests.support.wait import until

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "tailrace.json").read_text())
MISSING = "no Prometheus here: apt-get install prometheus"
NAME = re.compile(r"\b(?:tailrace|process)_\w+")
DEADLINE_S = 60.0
CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [alerts.yml]
scrape_configs:
{jobs}
"""
JOB = "  - {{job_name: tailrace-{role}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}"


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, MISSING
    return found


def dashboard_queries() -> list[str]:
    """Return every query, with Grafana's variables filled in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "1m").replace("$model", ".*") for query in found]


def names_in(text: str) -> set[str]:
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in NAME.findall(text)}


class Prometheus:
    """A Prometheus with the shipped alerts, before roles of a test."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="trprom-"))
        shutil.copy(SHIPPED / "alerts.yml", self.directory)
        jobs = "\n".join(JOB.format(role=role, port=port) for role, port in ports.items())
        self.config = self.directory / "prometheus.yml"
        self.config.write_text(CONFIG.format(jobs=jobs))
        self.port = free_port()
        self.client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}")

    async def __aenter__(self) -> Prometheus:
        data = self.directory / "data"
        argv = [
            tool("prometheus"), f"--config.file={self.config}", f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        self.process = spawn(argv, env={"PATH": "/usr/bin"}, output=self.directory / "out")
        return self

    async def __aexit__(self, *_: object) -> None:
        kill_group(self.process)
        await self.client.aclose()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def ask(self, path: str, **params: str) -> Any:
        """Return the data of an answer; None: Prometheus is not ready yet."""
        try:
            response = await self.client.get(f"/api/v1/{path}", params=params)
        except httpx2.TransportError:
            return None
        if response.status_code == 503:  # it listens, and still reads its data
            return None
        answer = response.json()
        assert answer["status"] == "success", (params, answer)
        return answer["data"]

    async def has_scraped(self) -> Any:
        found = await self.ask("targets")
        targets = found["activeTargets"] if found else []
        return len(targets) == 3 and all(target["health"] == "up" for target in targets)


@pytest.fixture(scope="module")
async def prometheus() -> AsyncIterator[Prometheus]:
    async with Deployment(api=1, workers=0, jobs=0, is_waiting_for_workers=False) as deployment:
        ports = {"api": deployment.api[0].port, "worker": free_port(), "jobs": free_port()}
        await deployment.add_worker(metrics_port=str(ports["worker"])).ready()
        jobs = deployment._role("jobs", metrics_port=str(ports["jobs"]))
        deployment.jobs.append(jobs)
        await jobs.start().ready()
        async with Client(deployment.urls) as client:
            name = (await client.start({"prompt": "Hello"}))["id"]

            async def has_ended() -> Any:
                return (await client.snapshot(name))["status"] == "completed"

            await until(has_ended, DEADLINE_S, "the answer")
        async with Prometheus(ports) as prometheus:
            await until(prometheus.has_scraped, DEADLINE_S, "a scrape of each role")
            yield prometheus


async def test_each_metric_of_the_dashboard_and_the_alerts_is_scraped(
    prometheus: Prometheus,
) -> None:
    metadata = await prometheus.ask("targets/metadata", limit="5000")
    scraped = {row["metric"] for row in metadata}
    text = " ".join([*dashboard_queries(), (SHIPPED / "alerts.yml").read_text()])
    wanted = names_in(text)

    assert len(wanted) > 25, "the search itself works"
    assert wanted <= scraped, wanted - scraped


async def test_each_query_of_the_dashboard_is_valid(prometheus: Prometheus) -> None:
    answers = await asyncio.gather(
        *(prometheus.ask("query", query=query) for query in dashboard_queries())
    )

    assert all(answer is not None for answer in answers)


async def test_each_alert_is_evaluated_and_a_healthy_system_fires_none(
    prometheus: Prometheus,
) -> None:
    async def rules() -> Any:
        groups = (await prometheus.ask("rules"))["groups"]
        found = [rule for group in groups for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else None

    found = await until(rules, DEADLINE_S, "each rule is evaluated")

    assert {rule["health"] for rule in found} == {"ok"}
    # The disk of a machine that runs tests may really be nearly full.
    firing = {rule["name"] for rule in found if rule["state"] == "firing"}
    assert firing <= {"TailraceDiskFull"}


def test_the_alerts_fire_when_they_should() -> None:
    with tempfile.TemporaryDirectory() as place:
        for source in (SHIPPED / "alerts.yml", Path(__file__).with_name("prometheus-rules.yml")):
            shutil.copy(source, place)
        argv = [tool("promtool"), "test", "rules", "prometheus-rules.yml"]
        run = subprocess.run(argv, cwd=place, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


def test_the_shipped_configuration_is_valid() -> None:
    argv = [tool("promtool"), "check", "config", str(SHIPPED / "prometheus.yml")]
    run = subprocess.run(argv, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
