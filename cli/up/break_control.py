"""The faults of "Break it": a loopback endpoint by which the nodes of `tailrace up` ask for them.

A node sends one line of JSON for each connection, and gets one line back. The line holds a random
token that only the nodes' environment has, so another user of this machine can ask for nothing.

    {"token", "do": "worker", "worker"}   kill the worker of this name
    {"token", "do": "freeze", "worker"}   stop it (SIGSTOP), and thaw it when its lease is over
    {"token", "do": "node", "pid"}        kill the node of this process id
    {"token", "do": "redis", "id"}        kill the server that holds this generation
    {"token", "do": "slot", "id"}         move the slot of this generation to another master
    {"token", "do": "text", "id"}         the checksum of the demo's text, computed anew
    {"token", "do": "notes", "after"}     what has happened since note `after`

Invariant: a frozen process is thawed also when this process dies, because its thawer then reads end
of file. Must not import `api` or `workers`, because the supervisor should stay small.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cli.up.keeper import Child, Keeper
from cli.up.supervisor import Supervisor

LINE_BYTES_MAX = 4_096
ASK_S = 5.0  # for one request to arrive
TOOL_S = 30.0  # for a tool to end
NOTES_MAX = 200
# Faults, without `text` and `notes`: enough for a person, too slow to keep the machine busy.
PAUSE_S = 0.5
PER_MINUTE_MAX = 30
LEASES_FROZEN = 2.0  # so that another worker has taken over when the frozen one wakes up
FROZEN_MARGIN_S = 2.5
SPARE_READY_S = 60.0  # for a worker that starts while the only one is frozen
LOOK_S = 0.1  # between two looks whether it is ready
SPARE_WORKER = "worker spare"

# A shell, so that the pipe's end thaws the process, whatever happens to the supervisor.
THAWER = 'read _; kill -CONT "$0"'


class Impossible(Exception):
    """The action cannot be done now; the text says why, for the person at the page."""


class Endpoint:
    """The listening socket, made before the nodes start because their environment names it."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.listener = socket.create_server(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        """The value of TAILRACE_BREAK_CONTROL."""
        return f"127.0.0.1:{self.listener.getsockname()[1]}/{self.token}"


class Notes:
    """What has happened to the children, for the timeline of the page; the newest `NOTES_MAX`."""

    def __init__(self) -> None:
        self._notes: deque[dict[str, Any]] = deque(maxlen=NOTES_MAX)
        self._counted = 0

    def add(self, text: str) -> None:
        self._counted += 1
        self._notes.append({"n": self._counted, "at_ms": round(time.time() * 1000), "text": text})

    def watch(self, child: str, line: bytes) -> None:
        """Note a line that says that a worker was refused, because another one has its answer."""
        if b"lease lost" in line and b"fenced" in line:
            self.add(f"{child} wanted to write on, and was refused: another worker has the answer")

    def after(self, number: int) -> list[dict[str, Any]]:
        return [note for note in self._notes if note["n"] > number]


@dataclass(frozen=True, slots=True)
class BreakPlan:
    """What can be broken.

    Attributes:
        lease_s: how long a worker may stay silent before another one takes over.
        spare: describes a further worker, for a freeze of the only one.
        is_own_redis: the supervisor keeps the Redis server.
        masters: of the private cluster, port -> name of the child.
    """

    endpoint: Endpoint
    lease_s: float
    spare: Callable[[str], Child]
    is_own_redis: bool
    masters: Mapping[int, str]


class FaultInjector:
    """Causes the faults, one at a time.

    Args:
        environ: the environment of the tools, that of the roles.
    """

    def __init__(
        self,
        plan: BreakPlan,
        supervisor: Supervisor,
        environ: Mapping[str, str],
        notes: Notes,
    ) -> None:
        self.plan = plan
        self._supervisor = supervisor
        self._environ = environ
        self._notes = notes
        self._group: asyncio.TaskGroup | None = None
        self._ending = asyncio.Event()
        self._frozen: set[str] = set()
        self._done_at: deque[float] = deque(maxlen=PER_MINUTE_MAX)

    @property
    def actions(self) -> list[str]:
        """The names of the faults that can be asked for."""
        own = ["redis"] if self.plan.is_own_redis else []
        return ["node", "worker", "freeze", *own, *(["slot"] if self.plan.masters else [])]

    async def do(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a node asks for; return the answer.

        Raises:
            Impossible: the action cannot be done now.
        """
        what = asked.get("do")
        if what == "notes":
            after = int(asked.get("after", 0))
            return {"actions": self.actions, "notes": self._notes.after(after)}
        if what == "text":
            return dict(json.loads(await self._tool("known_text", str(asked["id"]))))
        if what not in self.actions:
            raise Impossible(f"this Tailrace cannot do {what!r}")
        self._admit()
        return {"done": await self._break(str(what), asked)}

    def _admit(self) -> None:
        now = time.monotonic()
        is_full = len(self._done_at) == PER_MINUTE_MAX and now - self._done_at[0] < 60.0
        if is_full or (self._done_at and now - self._done_at[-1] < PAUSE_S):
            raise Impossible("too many faults at once: wait a moment")
        self._done_at.append(now)

    async def _break(self, what: str, asked: Mapping[str, Any]) -> str:
        if what == "slot":
            done = (await self._tool("slot_move", "move", str(asked["id"]))).strip()
            self._notes.add(done)
            return done
        if what == "freeze":
            return self._freeze(self._worker(str(asked["worker"])))
        if what == "worker":
            return self._kill(self._worker(str(asked["worker"])))
        if what == "node":
            pid = int(asked["pid"])
            found = [keeper for keeper in self._supervisor.keepers if keeper.pid == pid]
            if not found:
                raise Impossible("this node is not a process of `tailrace up`")
            return self._kill(found[0])
        name = "redis"
        if self.plan.masters:
            name = self.plan.masters[int(await self._tool("slot_move", "owner", str(asked["id"])))]
        return self._kill(self._named(name))

    def _named(self, name: str) -> Keeper:
        return next(keeper for keeper in self._supervisor.keepers if keeper.child.name == name)

    def _worker(self, announced: str) -> Keeper:
        for keeper in self._supervisor.keepers:
            if keeper.announced == announced and keeper.is_ready:
                return keeper
        raise Impossible("the worker of this answer is gone already: wait for the next one")

    def _kill(self, keeper: Keeper) -> str:
        pid = keeper.pid
        if not keeper.strike():
            raise Impossible(f"{keeper.child.name} is just starting: wait a moment")
        return f"{keeper.child.name} (pid {pid}) is killed by SIGKILL"

    def _freeze(self, keeper: Keeper) -> str:
        pid, name = keeper.pid, keeper.child.name
        if pid is None or name in self._frozen:
            raise Impossible(f"{name} is frozen or just starting: wait a moment")
        if self._others(keeper) == []:
            self._supervisor.add(self.plan.spare(SPARE_WORKER))
        frozen_s = LEASES_FROZEN * self.plan.lease_s + FROZEN_MARGIN_S
        os.kill(pid, signal.SIGSTOP)
        assert self._group is not None
        self._frozen.add(name)
        self._group.create_task(self._thaw_later(keeper, pid, frozen_s))
        done = f"{name} (pid {pid}) is frozen by SIGSTOP for at least {frozen_s:.1f} s"
        self._notes.add(done)
        return done

    def _others(self, keeper: Keeper) -> list[Keeper]:
        """Return the other workers that are not frozen."""
        return [
            other
            for other in self._supervisor.keepers
            if other.child.name.startswith("worker")
            and other.child.name not in self._frozen
            and other is not keeper
        ]

    async def _wait(self, seconds: float) -> None:
        """Wait, or return at once when `up` ends."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _wait_for_another(self, keeper: Keeper) -> None:
        """Wait until another worker is ready, which can take over."""
        deadline = time.monotonic() + SPARE_READY_S
        while not (
            self._ending.is_set()
            or time.monotonic() > deadline
            or any(other.is_ready for other in self._others(keeper))
        ):
            await self._wait(LOOK_S)

    async def _thaw_later(self, keeper: Keeper, pid: int, after_s: float) -> None:
        name = keeper.child.name
        thawer = await asyncio.create_subprocess_exec(
            *("sh", "-c", THAWER, str(pid)),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert thawer.stdin is not None
        try:
            await self._wait_for_another(keeper)
            await self._wait(after_s)
        finally:
            if keeper.pid == pid:
                self._notes.add(f"{name} (pid {pid}) is thawed by SIGCONT")
            thawer.stdin.close()
            await thawer.wait()
            self._frozen.remove(name)

    async def _tool(self, module: str, *words: str) -> str:
        """Run a short program of ours and return its output.

        Raises:
            Impossible: the program says why in its last line.
        """
        tool = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", f"cli.faults.{module}", *words),
            env=dict(self._environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(TOOL_S):
                out, said = await tool.communicate()
        except BaseException:
            tool.kill()
            await tool.wait()
            raise
        if tool.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise Impossible(lines[-1] if lines else f"{module} failed")
        return out.decode()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own the tasks that thaw; at the end, thaw at once what is frozen."""
        async with asyncio.TaskGroup() as self._group:
            try:
                yield
            finally:
                self._ending.set()


@contextlib.asynccontextmanager
async def serve(injector: FaultInjector) -> AsyncIterator[None]:
    """Answer the nodes' requests until the block ends."""
    endpoint = injector.plan.endpoint

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(ASK_S):
                line = await reader.readline()
            writer.write(json.dumps(await _answer(line, endpoint.token, injector)).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, sock=endpoint.listener, limit=LINE_BYTES_MAX)
    async with injector.running():
        try:
            yield
        finally:
            server.close()


async def _answer(line: bytes, token: str, injector: FaultInjector) -> dict[str, Any]:
    asked = json.loads(line)
    if not isinstance(asked, dict):
        raise ValueError("not an object")
    if not secrets.compare_digest(str(asked.get("token", "")), token):
        return {"refused": "wrong token"}
    try:
        return await injector.do(asked)
    except (Impossible, KeyError, TypeError, TimeoutError) as exc:
        return {"refused": str(exc) or type(exc).__name__}
