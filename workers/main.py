"""The worker role: one process, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager, nullcontext

from shared.config.gc_tuning import settle
from shared.config.logs import configure
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from shared.metrics.answers import NO_METRICS, AnswerMetrics
from shared.redis.connections import connect
from shared.redis.following import follow_redis
from workers.backends import build_backends
from workers.backends.http.upstream_http import UpstreamHttp
from workers.health.probing import Probing
from workers.model_list import ModelList
from workers.worker import Worker

log = logging.getLogger(__name__)

try:
    from uvloop import new_event_loop as _new_loop
except ImportError:  # not on every platform
    _new_loop = asyncio.new_event_loop  # type: ignore[assignment]


def serve(settings: Settings) -> int:
    """Run a worker until a signal stops it.

    The first SIGTERM or SIGINT drains within `settings.drain_s`; a second one stops at once.

    Returns:
        The exit code: 0 after a drain, 1 when the worker was stopped at once.

    Raises:
        ConfigurationError: the settings, the models file or the Redis server cannot be used.
    """
    configure(settings, "worker")
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    models = load_models(settings.models, settings.models_skip)
    http = UpstreamHttp(settings)
    backends = build_backends(models, settings, os.environ, http)
    redis = connect(settings)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    metrics, port = _metrics(settings)
    worker = Worker(redis, settings, name=name, models=models, backends=backends, metrics=metrics)
    http.on_limit = worker.access.note_limit
    probing = Probing(worker.access.health, redis, models, settings, os.environ)
    lists = ModelList(redis, models, settings, os.environ) if models.pattern else None
    ready = asyncio.Event()
    settle()
    try:
        async with port, asyncio.TaskGroup() as tasks:
            announcing = tasks.create_task(_announce(ready, name))
            serving = tasks.create_task(worker.serve(ready))
            watching = tasks.create_task(follow_redis(settings))
            own = [announcing, watching, tasks.create_task(probing.run())]
            if lists is not None:
                own.append(tasks.create_task(lists.follow()))
            _on_signals(worker, serving)
            serving.add_done_callback(lambda _: [task.cancel() for task in own])
    except* ConfigurationError as group:
        raise group.exceptions[0] from None
    finally:
        for backend in backends.values():
            await backend.aclose()
        await redis.aclose()
    return 1 if serving.cancelled() else 0


def _metrics(settings: Settings) -> tuple[AnswerMetrics, AbstractAsyncContextManager[int]]:
    """Return what the runs measure, and the port that shows it."""
    if not settings.metrics_port:
        return NO_METRICS, nullcontext(0)
    from shared.metrics.role_port import worker_port

    return worker_port(settings)


async def _announce(ready: asyncio.Event, name: str) -> None:
    """Print the line that a supervisor waits for."""
    await ready.wait()
    sys.stderr.write(f"tailrace worker ready: {name}\n")
    sys.stderr.flush()


def _on_signals(worker: Worker, serving: asyncio.Task[None]) -> None:
    def stop() -> None:
        if worker.is_draining or not worker.is_connected:
            serving.cancel()
        else:
            log.info("draining", extra={"running": len(worker.runs)})
            worker.drain()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
