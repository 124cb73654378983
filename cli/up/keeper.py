"""Keeps one child process running: starts it, restarts it when it dies, and relays its output.

The child leads its own session, so a Ctrl-C in the terminal does not reach it. Its standard input
is its lifeline (cli/up/lifeline.py). The child is ready when it prints its ready line.

Invariant: when `Keeper.run` returns or is cancelled, no process of the child's group is left. Must
not know what the child does, or that there are other children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

EXIT_CONFIGURATION = 2  # exit code of a child that can never start with these settings
STEADY_S = 10.0  # after a run of this length the restart pause is short again
RESTART_PAUSE_FIRST_S = 0.1  # doubles with each failure in a row
RESTART_PAUSE_MAX_S = 10.0
OUTPUT_LINE_BYTES_MAX = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """The description of a child process.

    Attributes:
        name: shown to the operator.
        argv: the command line.
        ready: the beginning of the output line that says the child is ready.
        kill_after_s: seconds between SIGTERM and SIGKILL.
        can_hurry: a second signal to the supervisor kills the child at once.
        pass_fds: file descriptors that the child inherits.
        environ: variables of this child only.
    """

    name: str
    argv: tuple[str, ...]
    ready: str
    kill_after_s: float
    can_hurry: bool = True
    pass_fds: tuple[int, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def restart_pause_s(failures: int, fraction: float) -> float:
    """Return the pause before the next start, seconds.

    Half of the pause is jitter, so children that died together do not start together.

    Args:
        failures: failures in a row, at least 1.
        fraction: a random number from 0 to 1.
    """
    pause_s = min(RESTART_PAUSE_FIRST_S * 2.0 ** min(failures - 1, 30), RESTART_PAUSE_MAX_S)
    return pause_s * (0.5 + 0.5 * fraction)


class LineSplitter:
    """Splits a byte stream into lines. A line beyond `OUTPUT_LINE_BYTES_MAX` is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without line ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > OUTPUT_LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return lines

    def close(self) -> list[bytes]:
        """Return the bytes after the last line end as a line, if there are any."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Keeper:
    """Keeps one child running until `end` is called.

    Args:
        environ: the environment of the child.
        say: shows a message of the keeper.
        relay: shows an output line of the child; called with the child's name and the line.
        changed: set when `is_ready`, `is_refused` or `is_ended` may have changed.

    Attributes:
        is_ready: the running child has printed its ready line.
        is_refused: the child can never start, and its output says why.
        is_ended: the child is gone and is not started again.
        announced: the rest of the running child's ready line, for instance a worker's name.
    """

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
        self.is_refused = False
        self.is_ended = False
        self.announced = ""
        self._environ = environ
        self._say = say
        self._relay = relay
        self._changed = changed
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._was_ready = False
        self._is_struck = False

    @property
    def pid(self) -> int | None:
        """The running process; None: there is none at this moment."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Start the child and restart it; return when it has ended after `end`, or is refused."""
        failures = 0
        while not (self._ending.is_set() or self.is_refused):
            began = time.monotonic()
            try:
                code = await self._run_once()
            except OSError as exc:  # no memory, too many processes, no such program
                self._say(f"{self.child.name} cannot be started: {exc}")
                code = 1
            self.is_ready = False
            if self._ending.is_set():
                break
            if code == EXIT_CONFIGURATION and not self._was_ready:
                self.is_refused = True
                break
            if self._is_struck:
                self._is_struck, failures = False, 0
                self._say(f"{self._named()} {describe_exit(code)}, as asked; starts again")
                continue
            failures = 1 if time.monotonic() - began > STEADY_S else failures + 1
            pause_s = restart_pause_s(failures, random.random())
            self._say(f"{self._named()} {describe_exit(code)}; again in {pause_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._ending.wait()
        self.is_ended = True
        self._changed.set()

    def end(self, number: signal.Signals) -> None:
        """Send a signal to the child and do not start it again. SIGKILL goes to its whole group."""
        self._ending.set()
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number is signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
                self._process.send_signal(signal.SIGCONT)  # it may be frozen

    def strike(self) -> bool:
        """Kill the child's group with SIGKILL, to start it again without a pause.

        Returns:
            False: no process runs at this moment.
        """
        pid = self.pid
        if pid is None or self._ending.is_set():
            return False
        self._is_struck = True
        self._kill_group(pid)
        return True

    def _named(self) -> str:
        pid = f" (pid {self._process.pid})" if self._process is not None else ""
        return f"{self.child.name}{pid}"

    async def _run_once(self) -> int:
        """Start the child, relay its output, and return its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self.child.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self._environ, **self.child.environ},
            pass_fds=self.child.pass_fds,
            start_new_session=True,
        )
        self._process = process
        if self._ending.is_set():  # `end` was called while the process was being created
            self.end(signal.SIGTERM)
        assert process.stdout is not None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relay_lines(process.stdout))
                code = await process.wait()
                self._kill_group(process.pid)
        finally:
            if process.returncode is None:  # cancelled: leave no process behind
                self._kill_group(process.pid)
        return code

    def _kill_group(self, group_id: int) -> None:
        """Kill processes that the child left in its group: they keep sockets and our pipe open."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group_id, signal.SIGKILL)

    async def _relay_lines(self, stream: asyncio.StreamReader) -> None:
        splitter = LineSplitter()
        while data := await stream.read(65_536):
            for line in splitter.feed(data):
                self._take(line)
        for line in splitter.close():
            self._take(line)

    def _take(self, line: bytes) -> None:
        self._relay(self.child.name, line)
        if not self.is_ready and line.startswith(self.child.ready.encode()):
            text = line.decode(errors="replace").removeprefix(self.child.ready)
            self.announced = text.removeprefix(":").strip()
            self._say(f"{self._named()} is ready{' again' if self._was_ready else ''}")
            self.is_ready = self._was_ready = True
            self._changed.set()


def describe_exit(code: int) -> str:
    """Describe how a process ended. A negative code is the signal that killed it."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
