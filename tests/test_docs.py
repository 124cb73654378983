"""The documents are true of the code: what one side names, the other side has.

Names are compared, not sentences: settings and defaults, metrics, log events, error codes, routes,
targets, paths, headings. The README's commands are run as they stand, on nodes of our own.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from api.body_room import BodyRoom
from api.edge.metrics import Metrics
from api.errors import CODES
from api.hub.statistics import HubStatistics
from api.pages.openapi.document import DOCUMENT
from cli.main import build_parser
from shared.backends.overview import BackendView
from shared.config.settings import PREFIX, Settings
from shared.errors import TailraceError
from shared.log import events
from shared.log.request import Request
from shared.metrics.prometheus import WorkerMetrics
from shared.queue.presence import Presence
from shared.redis.cluster.shard_states import ShardState
from shared.redis.counts import COUNTERS
from tests.support.processes import Deployment
from tests.support.sse import SseParser
from workers.backends.demo.backend import expected_text
from workers.worker import Worker

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PACKAGES = ("api", "workers", "shared", "jobs", "cli")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SCRIPTS = sorted((ROOT / "shared" / "redis" / "scripts").glob("*.lua"))

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#+ (.+)$", re.M)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
PATH = re.compile(r"`((?:api|workers|shared|jobs|cli|tests|docs|deploy|\.ci)/[\w./-]*)`")
MAKE = re.compile(r"(?:^|[`(\s])make ([a-z][a-z-]*)")
REFERENCE = re.compile(r'(docs/[\w/-]+\.md)(?:, "([^"]+)"(?: and "([^"]+)")?)?')
LOG_CALL = re.compile(r'\blog(?:ger)?\.(?:info|warning|error|exception)\(\s*"([^"]+)"')


def page(name: str) -> str:
    return (ROOT / name).read_text()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(text: str) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", text)


def headings(path: Path) -> list[str]:
    return HEADING.findall(prose(path.read_text()))


def anchor(heading: str) -> str:
    """How GitHub makes a link of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def shell_blocks(path: Path) -> list[str]:
    return [text for language, text in BLOCK.findall(path.read_text()) if language == "sh"]


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables by the names in their first cell; of several the first."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) > 1:
            for name in re.findall(r"`([^`]+)`", cells[0]):
                rows.setdefault(name, cells[1:])
    return rows


# Settings


def test_every_setting_is_described_with_its_default() -> None:
    rows = table_rows(page("docs/operations.md"))
    wrong = {}
    for field in fields(Settings):
        described = rows.get(PREFIX + field.name.upper(), ["no row"])[0]
        value = field.default
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        if described != (f"`{shown}`" if shown else "none"):
            wrong[field.name] = described

    assert not wrong


def test_every_variable_named_is_a_setting() -> None:
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    wrong = {
        name_of(path): unknown
        for path in PAGES
        if (unknown := set(re.findall(r"TAILRACE_[A-Z_]*[A-Z]", path.read_text())) - known)
    }

    assert not wrong


# The interface


def codes_raised() -> Iterator[str]:
    """Every code that our sources give an error, wherever they do."""
    for path in [*SOURCES, *SCRIPTS]:
        text = path.read_text()
        yield from re.findall(r'"code":"(\w+)"', text)
        if path.suffix == ".lua":
            yield from re.findall(r"\bfail\('(\w+)'", text)
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call):
                yield from _code_of(node)


def _code_of(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = {"BackendError": 0, "failed": 0, "request_error": 0, "RequestError": 1, "Failure": 0}
    if name in place and len(call.args) > place[name]:
        argument = call.args[place[name]]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def code_classes(base: type[TailraceError] = TailraceError) -> Iterator[str]:
    yield base.code
    for one in base.__subclasses__():
        yield from code_classes(one)


def test_every_error_code_is_described() -> None:
    found = {*codes_raised(), *code_classes(), *CODES}
    missing = {code for code in found if f"`{code}`" not in page("docs/protocol.md")}

    assert "queue_timeout" in found and "worker_lost" in found  # the search itself works
    assert not missing


def test_the_table_of_codes_has_status_and_close_code() -> None:
    rows = table_rows(page("docs/protocol.md"))
    wrong = []
    for code, row in CODES.items():
        status, close, retryable, *_ = rows[code]
        is_true = (
            status == (str(row.status) if row.status else "–")
            and (not row.close or str(row.close) in close)
            and retryable == ("yes" if row.is_retryable else "no")
        )
        if not is_true:
            wrong.append((code, status, close, retryable, row))

    assert not wrong


def test_every_close_code_is_described() -> None:
    rows = re.findall(r"^\| ([\d, ]+?)(?: \(| \|)", page("docs/protocol.md"), re.M)
    described = {int(number) for row in rows for number in re.findall(r"\d+", row)}

    assert {row.close for row in CODES.values() if row.close} <= described


def test_every_route_is_described() -> None:
    text = page("docs/protocol.md")
    missing = [
        path
        for path in DOCUMENT["paths"]
        if not re.search(rf"`(?:GET |POST )?{re.escape(path)}`", text)
    ]

    assert not missing


def test_every_event_is_described_with_its_members() -> None:
    rows = table_rows(page("docs/protocol.md"))
    wrong = {}
    for event in get_args(events.AnyEvent):
        members, _ = rows[event.__struct_config__.tag]
        described = set(re.findall(r"`(\w+)\??`", members))
        if described != set(event.__struct_fields__):
            wrong[event.__name__] = described

    assert not wrong


# What operators see


def metrics() -> Metrics:
    """All that a node can show, with a reader and a worker to show it of."""
    metrics = Metrics()
    counts = {field.name: 0 for field in fields(HubStatistics)}
    statistics = HubStatistics(**{**counts, "connections": {"sse": 1}, "is_live": True})
    metrics.watch_hub(lambda: statistics)
    metrics.watch_bodies(BodyRoom(1, 1))
    metrics.watch_shards(lambda: {("h", 1): ShardState()})
    metrics.presences = [Presence("w", 0, 1, 0, False, {"pieces": 0.0})]
    metrics.backends = [BackendView(name="b", first_tokens={1: 1}, rates={1: 1})]
    return metrics


def worker_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    return registry


def test_the_metrics_described_are_those_there_are() -> None:
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for registry in (metrics().registry, worker_registry())
        for family in registry.collect()
    }
    rows = table_rows(page("docs/operations.md"))

    assert {name for name in rows if name.startswith("tailrace_")} == found


def test_every_count_of_a_worker_is_described() -> None:
    nobody: Any = None
    worker = Worker(nobody, Settings(), name="w", models={}, backends={})
    rows = table_rows(page("docs/operations.md"))

    assert set(worker._presence(0).counters) <= set(rows)


def test_every_count_of_the_jobs_role_is_described() -> None:
    rows = table_rows(page("docs/operations.md"))

    assert set(COUNTERS) <= set(rows)


def test_the_log_events_described_are_those_there_are() -> None:
    written = {event for path in SOURCES for event in LOG_CALL.findall(path.read_text())}
    rows = re.findall(r"^\| (`.*`) \| (?:info|warning|error) \|", page("docs/operations.md"), re.M)
    described = {event for names in rows for event in re.findall(r"`([^`]+)`", names)}

    assert described == written


# The pages themselves


def test_every_link_leads_somewhere() -> None:
    broken = []
    for path in PAGES:
        for link in LINK.findall(prose(path.read_text())):
            name, _, fragment = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            has_heading = not fragment or (
                target.exists() and fragment in map(anchor, headings(target))
            )
            if not target.exists() or not has_heading:
                broken.append(f"{name_of(path)}: {link}")

    assert not broken


def test_every_path_named_exists() -> None:
    missing = [
        f"{name_of(path)}: {name}"
        for path in PAGES
        for name in PATH.findall(path.read_text())
        if not (ROOT / name).exists()
    ]

    assert not missing


def test_every_page_and_heading_that_the_code_names_exists() -> None:
    """`docs/architecture.md, "The hub"` names a page and a heading."""
    missing = []
    for path in [*SOURCES, *SCRIPTS]:
        text = " ".join(path.read_text().replace('"""', " ").split())
        for name, *titles in REFERENCE.findall(text):
            if not (ROOT / name).exists():
                missing.append(f"{name_of(path)}: {name}")
                continue
            found = headings(ROOT / name)
            missing += [f"{name_of(path)}: {name}, {t!r}" for t in titles if t and t not in found]

    assert not missing


def test_every_file_that_the_code_names_exists() -> None:
    """A comment that names a module of ours, or a test, by its path."""
    named = re.compile(r"\b((?:tests|api|shared|workers|jobs|cli)/[\w/]+\.(?:py|lua|js))\b")
    missing = [
        f"{name_of(path)}: {name}"
        for path in [*SOURCES, *SCRIPTS]
        for name in named.findall(path.read_text())
        if not (ROOT / name).exists()
    ]

    assert not missing


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", page("Makefile"), re.M))


def test_every_make_target_is_described() -> None:
    rows = table_rows(page("CONTRIBUTING.md"))

    assert {
        name.removeprefix("make ") for name in rows if name.startswith("make ")
    } == make_targets()


def test_every_make_target_named_exists() -> None:
    wrong = {}
    for path in PAGES:
        named = {name for block in shell_blocks(path) for name in MAKE.findall(block)}
        named |= set(re.findall(r"`make ([a-z-]+)", path.read_text()))
        if unknown := named - make_targets():
            wrong[name_of(path)] = unknown

    assert not wrong


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads(page("pyproject.toml"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    section = page("docs/architecture.md").partition("## Dependencies")[2]

    for requirement in wanted:
        name = re.split(r"[^\w-]", requirement)[0]
        assert re.search(rf"\b{name}\b", section), requirement


# Commands


def test_shell_blocks_are_valid() -> None:
    wrong = []
    for path in PAGES:
        for block in shell_blocks(path):
            done = subprocess.run(
                ["bash", "-n"], input=block, text=True, capture_output=True, check=False
            )
            if done.returncode:
                wrong.append(f"{name_of(path)}: {done.stderr}{block}")

    assert not wrong


def test_commands_of_ours_are_understood() -> None:
    for path in PAGES:
        for block in shell_blocks(path):
            for line in re.findall(
                r"^(?:TAILRACE_\w+=\S+ )*\.venv/bin/tailrace (.*)$", block, re.M
            ):
                build_parser().parse_args(shlex.split(line))  # ends the test where it is wrong


@pytest.fixture(scope="module")
async def deployment() -> Any:
    quick = '[models.demo]\nbackend = "demo"\non_takeover = "continue"\ntokens_per_s = 300\n'
    async with Deployment(api=2, workers=1, models=quick) as deployment:
        yield deployment


CURL_BLOCKS = [block for block in shell_blocks(ROOT / "README.md") if "curl" in block]


def on(deployment: Deployment, block: str) -> str:
    """The block as it stands, but for the addresses."""
    for port, url in zip((8000, 8001), deployment.urls, strict=True):
        block = block.replace(f"http://127.0.0.1:{port}", url)
    return block


def run_shell(script: str) -> str:
    env = {"PATH": os.environ["PATH"], "no_proxy": "*"}
    done = subprocess.run(
        ["bash", "-eu"],
        input=script,
        text=True,
        capture_output=True,
        timeout=60,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_commands_of_producers_md_write_a_log(deployment: Deployment) -> None:
    (block,) = shell_blocks(ROOT / "docs" / "producers.md")
    output = run_shell(on(deployment, block))
    events = [json.loads(line) for line in output.splitlines() if line.startswith('{"id":"1-')]

    assert [event["type"] for event in events] == ["start", "progress", "token", "end"]


def seqs_and_types(output: str) -> list[tuple[int, str]]:
    """What a block printed, NDJSON and then server-sent events, or either of them."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    found = [(line["id"], line["type"]) for line in lines]
    rest = "".join(line for line in output.splitlines(keepends=True) if not line.startswith("{"))
    parser = SseParser()
    found += [(block.event_id, block.event) for block in parser.feed(rest.encode())]
    assert not parser.faults
    return [(int(event_id.partition("-")[2]), kind) for event_id, kind in found]


@pytest.mark.parametrize("block", CURL_BLOCKS, ids=range(len(CURL_BLOCKS)))
async def test_the_readmes_streams_are_whole_also_when_they_are_cut(
    deployment: Deployment, block: str
) -> None:
    found = seqs_and_types(run_shell(on(deployment, block)))

    assert [seq for seq, _ in found] == list(range(1, len(found) + 1))
    assert found[-1][1] == "end"


async def test_the_fields_of_meta_are_described(deployment: Deployment) -> None:
    run_shell(on(deployment, CURL_BLOCKS[0]))
    rows = table_rows(page("docs/operations.md"))
    async with deployment.redis() as redis:
        names = [key async for key in redis.scan_iter("tr:*:meta")]
        found = {field.decode() for name in names for field in await redis.hgetall(name)}

    assert "status" in found
    assert found <= set(rows)


def test_the_recording_of_the_readme_is_an_answer_of_the_demo() -> None:
    """It was recorded with `seed` 7; ids without a hole, and the words that the demo must say."""
    recording = re.search(r"```\n(\{\"id\":\"1-1\".*?)```", page("README.md"), re.DOTALL)
    assert recording is not None
    events = [json.loads(line) for line in recording[1].splitlines()]
    request = Request([{"role": "user", "content": "What is a log good for?"}], {"seed": 7})
    text = "".join(event.get("text", "") for event in events)

    assert len(events) == 10
    assert [int(event["id"].partition("-")[2]) for event in events] == list(range(1, 11))
    assert expected_text(request, "gen_0").startswith(text)
