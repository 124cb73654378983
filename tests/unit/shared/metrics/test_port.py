"""The metrics port of a worker: what it answers, and that no peer can hold it."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import ConfigurationError
from shared.log.events import Counts
from shared.metrics import port as port_module
from shared.metrics.labels import BoundedLabel
from shared.metrics.port import MetricsPort, new_registry
from shared.metrics.prometheus import WorkerMetrics

HOST = "127.0.0.1"


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def get(path: str = "/metrics", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_a_scrape_shows_the_process_and_each_measure_by_model() -> None:
    registry = new_registry()
    metrics = WorkerMetrics(registry)
    metrics.begun("m", "interactive", 0.2)
    metrics.first_token("m", 0.4)
    metrics.left("m", ending="failed", code="upstream_error", seconds=3.0)
    metrics.counted("m", Counts(7, 5, 12))

    async with MetricsPort(registry).listening(HOST, 0) as port:
        head, _, body = (await ask(port, get())).decode().partition("\r\n\r\n")

    assert head.startswith("HTTP/1.1 200 OK")
    for line in (
        'tailrace_worker_wait_seconds_bucket{le="0.25",model="m",priority="interactive"} 1.0',
        'tailrace_worker_first_token_seconds_bucket{le="0.5",model="m"} 1.0',
        'tailrace_worker_run_seconds_count{model="m"} 1.0',
        'tailrace_worker_attempts_total{code="upstream_error",ending="failed",model="m"} 1.0',
        'tailrace_worker_tokens_total{kind="prompt",model="m"} 7.0',
        'tailrace_worker_tokens_total{kind="completion",model="m"} 5.0',
    ):
        assert line in body
    assert "process_cpu_seconds_total" in body


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/"), b"404"),
        (get("/metrics?name=x"), b"200"),
        (get(method="POST"), b"405"),
        (get(method="HEAD"), b"200"),
        (b"rubbish\r\n\r\n", b"404"),
    ],
    ids=["another path", "a query", "another method", "HEAD", "rubbish"],
)
async def test_the_port_answers_other_requests_with_their_status(
    request_bytes: bytes, status: bytes
) -> None:
    async with MetricsPort(new_registry()).listening(HOST, 0) as port:
        assert (await ask(port, request_bytes)).split(b" ")[1] == status


async def test_a_head_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "EXCHANGE_S", 0.01)
    async with MetricsPort(new_registry()).listening(HOST, 0) as port:
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n") == b""


async def test_a_head_that_is_too_long_gets_no_answer() -> None:
    async with MetricsPort(new_registry()).listening(HOST, 0) as port:
        with pytest.raises((ConnectionError, AssertionError)):
            answer = await ask(port, b"GET /metrics HTTP/1.1\r\nA: " + b"a" * 200_000)
            assert answer != b""


async def test_a_taken_port_is_named_in_one_line() -> None:
    async with MetricsPort(new_registry()).listening(HOST, 0) as port:
        with pytest.raises(ConfigurationError, match="--metrics-port names another"):
            async with MetricsPort(new_registry()).listening(HOST, port):
                pass


def test_models_beyond_the_bound_share_one_label() -> None:
    label = BoundedLabel(values_max=2)

    assert [label.of(name) for name in ("a", "b", "c", "a", "d")] == [
        "a",
        "b",
        "other",
        "a",
        "other",
    ]
