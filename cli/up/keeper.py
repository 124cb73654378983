"""Keeps one child process running: starts it, and again when it dies; passes on what it writes.

The child leads a session of its own, so that a terminal's Ctrl-C does not reach it, and its
standard input is its lifeline (cli/up/lifeline.py). It is ready when it says so in a line of
output.

Invariant: when `Keeper.run` returns or is cancelled, no process of the child's group is left. Must
not know what the child is, nor of other children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

EXIT_CONFIGURATION = 2  # a child that cannot start, now or ever
STEADY_S = 10.0  # a child that ran this long has not failed in a row
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
LINE_BYTES_MAX = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """What to run.

    Attributes:
        name: as shown to the operator.
        argv: the command.
        ready: how the line on standard error begins that says it is ready.
        end_s: seconds between SIGTERM and SIGKILL.
        can_hurry: a second signal to the supervisor kills it at once.
        pass_fds: file descriptors that it inherits.
    """

    name: str
    argv: tuple[str, ...]
    ready: str
    end_s: float
    can_hurry: bool = True
    pass_fds: tuple[int, ...] = ()


def backoff_s(failures: int, fraction: float) -> float:
    """Return the pause before the next start; `fraction` from 0 to 1 is the jitter.

    Half of it is jitter, so that several that died together do not come back together.
    """
    whole = min(BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 30), BACKOFF_MAX_S)
    return whole * (0.5 + 0.5 * fraction)


class LineSplitter:
    """Cuts a byte stream into lines; one beyond `LINE_BYTES_MAX` is cut there."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return lines

    def close(self) -> list[bytes]:
        """Return what came after the last line end."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Keeper:
    """Keeps one child running until it is told to end."""

    def __init__(
        self,
        child: Child,
        environ: Mapping[str, str],
        *,
        say: Callable[[str], None],
        relay: Callable[[str, bytes], None],
        changed: asyncio.Event,
    ) -> None:
        self.child = child
        self.is_ready = False
        self.is_refused = False  # it cannot start, and said why
        self.is_ended = False
        self._environ = environ
        self._say = say
        self._relay = relay
        self._changed = changed
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False

    async def run(self) -> None:
        """Start the child, again and again; return once `end` was called and it is gone."""
        failures = 0
        while not (self._ending.is_set() or self.is_refused):
            began = time.monotonic()
            try:
                code = await self._run_once()
            except OSError as exc:  # no memory, no process left, no such program
                self._say(f"{self.child.name} cannot be started: {exc}")
                code = 1
            self.is_ready = False
            if self._ending.is_set():
                break
            if code == EXIT_CONFIGURATION and not self._was_ready:
                self.is_refused = True
                break
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            pause_s = backoff_s(failures, random.random())
            self._say(f"{self.child.name} {describe_exit(code)}; again in {pause_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending.wait()
        self.is_ended = True
        self._changed.set()

    def end(self, number: signal.Signals) -> None:
        """Send `number` to the child and start it no more; SIGKILL goes to its whole group."""
        self._ending.set()
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    async def _run_once(self) -> int:
        """Start the child, pass on what it writes, return its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self.child.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environ),
            pass_fds=self.child.pass_fds,
            start_new_session=True,
        )
        self._process = process
        if self._ending.is_set():  # told to end while the process was being made
            self.end(signal.SIGTERM)
        assert process.stdout is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(process.stdout))
                code = await process.wait()
                self._kill_group(process.pid)
        finally:
            if process.returncode is None:  # cancelled: nothing may stay behind
                self._kill_group(process.pid)
        return code

    def _kill_group(self, group_id: int) -> None:
        """End what a child left in its group: it would keep sockets and our pipe open."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group_id, signal.SIGKILL)

    async def _pass_on(self, stream: asyncio.StreamReader) -> None:
        splitter = LineSplitter()
        while data := await stream.read(65_536):
            for line in splitter.feed(data):
                self._take(line)
        for line in splitter.close():
            self._take(line)

    def _take(self, line: bytes) -> None:
        self._relay(self.child.name, line)
        if not self.is_ready and line.startswith(self.child.ready.encode()):
            self.is_ready = self._was_ready = True
            self._changed.set()


def describe_exit(code: int) -> str:
    """Say how a process ended: a negative code is the signal that killed it."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
