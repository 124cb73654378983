"""Runs the children of `tailrace up` or `tailrace api --processes` until a signal.

Connects the supervisor, the terminal, the signals and, for `up`, the faults of the chat page. Must
not import `api` or `workers`, because this process should stay small.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.up.break_control import BreakPlan, FaultInjector, Notes, serve
from cli.up.keeper import Child
from cli.up.output import open_screen, write_lines
from cli.up.supervisor import Supervisor
from shared.config.settings import Settings


async def supervise(
    settings: Settings,
    stages: Sequence[Sequence[Child]],
    name: str,
    greet: Callable[[float], list[str]],
    *,
    faults: BreakPlan | None = None,
) -> int:
    """Run children until a signal; return the exit code.

    Args:
        stages: started in this order.
        name: the command's name in messages.
        greet: returns the lines for standard output when all children are ready; called with the
            seconds that the start took.
        faults: what the nodes' page may break; None: nothing.
    """
    began = time.monotonic()
    screen = open_screen(settings, name, os.environ)
    if screen.is_short:
        settings = dataclasses.replace(settings, request_log="on")
    environ = child_environ(settings, screen.roles_log)
    notes = Notes()

    def say(line: str) -> None:
        screen.say(line)
        notes.add(line)

    def relay(child: str, line: bytes) -> None:
        screen.relay(child, line)
        notes.watch(child, line)

    supervisor = Supervisor(environ, say=say, relay=relay)
    loop = asyncio.get_running_loop()
    # A shell starts `tailrace up &` with SIGINT ignored; the handler makes `kill -INT` work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        is_nohup = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
        if not is_nohup:
            loop.add_signal_handler(number, supervisor.stop)

    def on_ready() -> None:
        write_lines(*greet(time.monotonic() - began), stream=sys.stdout.fileno())

    async with contextlib.AsyncExitStack() as stack:
        if faults is not None:
            injector = FaultInjector(faults, supervisor, environ, notes)
            await stack.enter_async_context(serve(injector))
        code = await supervisor.run(stages, on_ready)
    screen.say("ended")
    return code


def child_environ(settings: Settings, log: str) -> dict[str, str]:
    """Return the environment of the roles: ours, the address of Redis, and this checkout's code.

    Args:
        log: the value of TAILRACE_LOG. A role writes into our pipe, so it cannot see whether we
            have a terminal.
    """
    path = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_JOBS_REDIS_URL": settings.jobs_redis_url,
        # An absolute path, so that all roles use the same directory.
        "TAILRACE_DATA_DIR": str(Path(settings.data_dir).resolve()),
        "TAILRACE_LOG": log,
        "TAILRACE_REQUEST_LOG": settings.request_log,
        "TAILRACE_MODELS": settings.models,
        "TAILRACE_MODELS_SKIP": settings.models_skip,
    }
