"""The faults of "Break it", with stand-ins for the processes; tests/faults runs real ones."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from cli.up import break_control
from cli.up.break_control import BreakPlan, Endpoint, FaultInjector, Impossible, Notes, serve
from cli.up.keeper import Child


class Kept:
    """A keeper of a process that is this test's own child, or of none."""

    def __init__(self, name: str, pid: int | None = None, announced: str = "") -> None:
        self.child = Child(name=name, argv=(), ready="", kill_after_s=1.0)
        self.pid = pid
        self.announced = announced
        self.is_ready = pid is not None
        self.struck = 0

    def strike(self) -> bool:
        self.struck += 1
        return self.pid is not None


class KeptAll:
    """A supervisor of stand-ins. A child that is added is ready at once, or when the test says."""

    is_slow = False

    def __init__(self, *keepers: Kept) -> None:
        self.keepers = list(keepers)
        self.added: list[str] = []

    def add(self, child: Child) -> None:
        self.added.append(child.name)
        self.keepers.append(Kept(child.name, None if self.is_slow else 1))


MADE: list[Endpoint] = []


def injector_of(supervisor: Any, **changes: Any) -> FaultInjector:
    MADE.append(Endpoint())
    plan = BreakPlan(
        MADE[-1],
        **{
            "lease_s": 0.001,
            "spare": lambda name: Child(name=name, argv=(), ready="", kill_after_s=1.0),
            "is_own_redis": True,
            "masters": {},
            **changes,
        },
    )
    return FaultInjector(plan, supervisor, dict(os.environ), Notes())


@pytest.fixture(autouse=True)
def unlimited(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(break_control, "PAUSE_S", 0.0)
    monkeypatch.setattr(break_control, "FROZEN_MARGIN_S", 0.05)
    yield
    while MADE:
        MADE.pop().listener.close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


async def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
    return os.WIFSTOPPED(status)


async def is_thawed(process: subprocess.Popen[bytes]) -> bool:
    _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WCONTINUED)
    return os.WIFCONTINUED(status)


async def ask(endpoint: Endpoint, **asked: Any) -> dict[str, Any]:
    host, port = endpoint.listener.getsockname()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(json.dumps(asked).encode() + b"\n")
    found: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return found


async def test_without_the_token_nothing_happens() -> None:
    worker = Kept("worker 1", 1, "vm-1")
    injector = injector_of(KeptAll(worker))
    async with serve(injector):
        refused = await ask(injector.plan.endpoint, token="wrong", do="worker", worker="vm-1")
        done = await ask(
            injector.plan.endpoint, token=injector.plan.endpoint.token, do="worker", worker="vm-1"
        )

    assert refused == {"refused": "wrong token"}
    assert done == {"done": "worker 1 (pid 1) is killed by SIGKILL"}
    assert worker.struck == 1


async def test_only_the_worker_with_this_name_is_killed() -> None:
    workers = [Kept("worker 1", 11, "vm-1"), Kept("worker 2", 12, "vm-2")]
    injector = injector_of(KeptAll(*workers))
    await injector.do({"do": "worker", "worker": "vm-2"})

    assert [worker.struck for worker in workers] == [0, 1]
    with pytest.raises(Impossible):
        await injector.do({"do": "worker", "worker": "vm-3"})


async def test_a_node_can_kill_only_children() -> None:
    node = Kept("api 8000", 21)
    injector = injector_of(KeptAll(node))
    with pytest.raises(Impossible):
        await injector.do({"do": "node", "pid": 1})
    await injector.do({"do": "node", "pid": 21})

    assert node.struck == 1


@pytest.mark.parametrize(
    ("changes", "what"), [({"is_own_redis": False}, "redis"), ({}, "slot"), ({}, "anything")]
)
async def test_a_fault_that_this_installation_cannot_do_is_refused(
    changes: dict[str, Any], what: str
) -> None:
    injector = injector_of(KeptAll(), **changes)

    assert what not in injector.actions
    with pytest.raises(Impossible):
        await injector.do({"do": what, "id": "gen_a"})


async def test_a_frozen_worker_is_thawed_after_its_lease(
    process: subprocess.Popen[bytes],
) -> None:
    worker = Kept("worker 1", process.pid, "vm-1")
    supervisor = KeptAll(worker)
    injector = injector_of(supervisor)
    async with injector.running():
        said = await injector.do({"do": "freeze", "worker": "vm-1"})
        assert await is_stopped(process)
        with pytest.raises(Impossible):
            await injector.do({"do": "freeze", "worker": "vm-1"})
        assert await is_thawed(process)

    assert "is frozen by SIGSTOP" in said["done"]
    assert supervisor.added == ["worker spare"]
    assert "is thawed by SIGCONT" in injector._notes.after(0)[-1]["text"]


async def test_a_frozen_worker_is_thawed_when_up_ends(process: subprocess.Popen[bytes]) -> None:
    supervisor = KeptAll(Kept("worker 1", process.pid, "vm-1"), Kept("worker 2", 1, "vm-2"))
    injector = injector_of(supervisor, lease_s=3_600.0)
    async with injector.running():
        await injector.do({"do": "freeze", "worker": "vm-1"})
        assert await is_stopped(process)

    assert await is_thawed(process)
    assert supervisor.added == []  # another worker was there


async def test_the_only_worker_stays_frozen_until_another_is_ready(
    process: subprocess.Popen[bytes],
) -> None:
    """Otherwise it would write on, and a slow machine would show no takeover."""
    supervisor = KeptAll(Kept("worker 1", process.pid, "vm-1"))
    supervisor.is_slow = True
    injector = injector_of(supervisor)
    async with injector.running():
        await injector.do({"do": "freeze", "worker": "vm-1"})
        assert await is_stopped(process)
        thawing = asyncio.create_task(is_thawed(process))
        done, _ = await asyncio.wait([thawing], timeout=0.3)
        assert not done
        supervisor.keepers[-1].is_ready = True
        assert await thawing


async def test_faults_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    injector = injector_of(KeptAll(Kept("worker 1", 1, "vm-1")))
    for _ in range(break_control.PER_MINUTE_MAX):
        await injector.do({"do": "worker", "worker": "vm-1"})

    with pytest.raises(Impossible, match="wait"):
        await injector.do({"do": "worker", "worker": "vm-1"})
    assert await injector.do({"do": "notes"})  # costs nothing


async def test_a_fenced_worker_becomes_a_note() -> None:
    notes = Notes()
    notes.watch("worker 1", b'{"event": "lease lost", "how": "fenced"}')
    notes.watch("worker 1", b'{"event": "lease lost", "how": "lost"}')
    notes.watch("worker 1", b"lease lost  how=fenced")

    assert [note["n"] for note in notes.after(0)] == [1, 2]
    assert [note["n"] for note in notes.after(1)] == [2]


@pytest.mark.parametrize("line", [b"", b"\n", b"[]\n", b"{}\n", b"x" * 10_000])
async def test_a_request_that_cannot_be_read_is_refused(line: bytes) -> None:
    injector = injector_of(KeptAll())
    async with serve(injector):
        host, port = injector.plan.endpoint.listener.getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(line)
        writer.write_eof()
        said = await reader.read()
        writer.close()

    assert said in (b"", b'{"refused": "wrong token"}\n')
