"""The processes that compute answers of one local model.

Each process computes one answer at a time. A process starts when an answer needs one and none is
idle, up to a number. It is used again for the next answer, and ends with the worker. Invariant: a
process whose answer was broken off is idle again only after it has said so; otherwise it is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

from shared.errors import MESSAGE_CHARACTERS_MAX, BackendError

LINE_BYTES_MAX = 1_048_576
STOP_S = 1.0  # for a process to break off an answer, before it is killed
END_S = 1.0  # for a process to end by itself
MEMORY_HINT = "it may need more than `memory_mb`"


class EngineProcess:
    """One process of `workers/local_model/engine.py`.

    Attributes:
        is_idle: it computes nothing and may be used.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.is_idle = False
        self._process = process
        self._number = 0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    async def read(self) -> dict[str, Any]:
        """Return the next line.

        Raises:
            BackendError: the process has died.
        """
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:  # longer than LINE_BYTES_MAX
            line = b""
        if not line.endswith(b"\n"):
            raise await self._died()
        read: dict[str, Any] = json.loads(line)
        return read

    def ask(self, task: dict[str, Any]) -> None:
        """Give the process an answer to compute. It must be idle."""
        self._number += 1
        self.is_idle = False
        self._write({"id": self._number, **task})

    async def break_off(self) -> bool:
        """Stop the running answer; return whether the process can be used again."""
        self._write({"stop": self._number})
        with suppress(TimeoutError, BackendError):
            async with asyncio.timeout(STOP_S):
                while not self.is_idle:
                    self.note(await self.read())
        return self.is_idle

    def note(self, line: dict[str, Any]) -> None:
        """Note whether a line is the last of the answer."""
        self.is_idle = "finish" in line or "refused" in line

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """End the process, by force if it takes long."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._process.wait()
        self.kill()
        await self._process.wait()

    def _write(self, line: dict[str, Any]) -> None:
        # The transport keeps what a process that computes has not read. A prompt is bounded, and
        # there is one for each process.
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _died(self) -> BackendError:
        # `kill` first would take the exit code away from asyncio.
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._process.wait()
        self.kill()
        code = await self._process.wait()
        assert self._process.stderr is not None
        said = (await self._process.stderr.read()).decode(errors="replace").strip()
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
        detail = f": {said.splitlines()[-1]}" if said else ""
        message = f"the process of the local model died ({how}; {MEMORY_HINT}){detail}"
        return BackendError("upstream_error", message[:MESSAGE_CHARACTERS_MAX])


class EnginePool:
    """The processes of one model.

    Args:
        options: for the program: file, context_tokens, threads, memory_mb.
        processes: how many may run; further answers wait for their turn, in order.
    """

    def __init__(self, options: dict[str, Any], processes: int) -> None:
        self._options = options
        self._turns = asyncio.Semaphore(processes)
        self._idle: list[EngineProcess] = []
        self._all: set[EngineProcess] = set()

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [process.pid for process in self._all]

    @property
    def computing(self) -> list[int]:
        """The processes that compute an answer."""
        return [process.pid for process in self._all if not process.is_idle]

    @property
    def ended(self) -> list[int]:
        """The processes that have died, and were not removed yet."""
        return [process.pid for process in self._all if process.has_ended]

    async def take(self) -> EngineProcess:
        """Wait for a turn; return an idle process, which has loaded the model.

        Raises:
            BackendError: the model cannot be loaded.
        """
        await self._turns.acquire()
        try:
            while self._idle:
                process = self._idle.pop()  # the last one that was used: its memory is in caches
                if not process.has_ended:
                    return process
                await self._remove(process)
            return await self._start()
        except BaseException:
            self._turns.release()
            raise

    async def give_back(self, process: EngineProcess) -> None:
        """Take a process back, in whatever state it is. To be called once after each `take`."""
        is_usable = False
        try:
            is_usable = process.is_idle or await process.break_off()
        finally:
            self._turns.release()
            if is_usable:
                self._idle.append(process)
            else:
                await self._remove(process)

    async def aclose(self) -> None:
        """End the processes. May be repeated."""
        processes, self._all = self._all, set()
        self._idle.clear()
        for process in processes:
            await process.end()

    async def _start(self) -> EngineProcess:
        started = EngineProcess(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "workers.local_model.engine"),
                json.dumps(self._options),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
                env=_environment(),
                start_new_session=True,  # Ctrl-C reaches the worker, which drains first
            )
        )
        self._all.add(started)
        try:
            line = await started.read()
            if "failed" in line:
                message = f"the local model cannot be loaded: {line['failed']}"
                raise BackendError("upstream_error", message, retryable=False)
        except BaseException:
            await self._remove(started)
            raise
        return started

    async def _remove(self, process: EngineProcess) -> None:
        process.kill()
        await process.end()
        self._all.discard(process)


def _environment() -> dict[str, str]:
    """Return the environment of a process: our import path, and threads that wait without spinning.

    Threads of OpenMP spin while they wait for each other. On a machine that also runs other
    processes this made an answer twenty times slower.
    """
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_WAIT_POLICY": "passive",
        "GGML_NO_BACKTRACE": "1",  # a crash would start a debugger, if there is one
    }
