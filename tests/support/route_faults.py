"""What may happen to a model server of a route, done to real processes and counted.

Two model servers, `a` and `b`, and a route over both in this order for each fault. All answers of a
fault begin at `a`; then `a` gets into trouble, and every reader must get its exact text from `b`,
under the same ids. tests/faults/test_routes.py plays a few answers, `python -m tests.soak.routes`
many, and prints the table of docs/routing.md.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from shared.redis import keys
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.processes import Deployment, start_module
from tests.support.redis_server import free_port
from tests.support.spawn import Process, kill_group, signal_group
from tests.support.upstream import expected_text, script_of
from tests.support.wait import until

DEADLINE_S = 60.0
IDLE_S = 1.0  # how long a worker waits for the next token of a frozen server
TABLE = """
[models.{fault}]
route = ["{fault}-a", "{fault}-b"]
on_takeover = "continue"

[models.{fault}-a]
base_url = "{a}"
hidden = true

[models.{fault}-b]
base_url = "{b}"
hidden = true
set = {{upstream = {{first_delay_s = 0}}}}
"""


class ModelServer:
    """A model server in a process of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.port = free_port()
        self.output = directory / f"model-server-{name}"
        self.output.touch()
        self.process: Process | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        argv = ["--port", str(self.port)]
        self.process = start_module("tests.support.upstream", argv, env={}, output=self.output)
        await until(lambda: self._get("/models"), DEADLINE_S, "the model server answers")

    def kill(self) -> None:
        assert self.process is not None
        kill_group(self.process)

    def freeze(self) -> None:
        assert self.process is not None
        signal_group(self.process, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        signal_group(self.process, signal.SIGCONT)

    async def refuse(self, status: int) -> None:
        """Refuse every new request with this status; 0: no longer."""
        await self._get(f"/refuse/{status}")

    async def prompts(self) -> list[str]:
        """Return the prompt of each call, since the server started."""
        return [call["prompt"] for call in await self._get("/calls")]

    async def _get(self, path: str) -> Any:
        async with aiohttp.ClientSession() as http, http.get(self.base_url + path) as response:
            return await response.json()


@dataclass
class Scene:
    """The cluster and the two model servers.

    Attributes:
        calls: of a server before it was started again, by name.
    """

    deployment: Deployment
    a: ModelServer
    b: ModelServer
    calls: dict[str, list[str]] = field(default_factory=lambda: {"a": [], "b": []})

    async def keep_calls(self) -> None:
        """Remember the calls of `a`, which is about to be killed."""
        self.calls["a"] += await self.a.prompts()

    async def count(self, name: str, prompts: Sequence[str]) -> int:
        server = self.a if name == "a" else self.b
        return sum(prompt in prompts for prompt in self.calls[name] + await server.prompts())


@dataclass(frozen=True)
class Fault:
    """One kind of trouble.

    Attributes:
        what: for the table.
        happens: called when every reader has got some tokens, or at once with `is_before`.
        is_before: the trouble comes before any answer begins.
        script: of the answers.
        calls: at most so many requests to `a` and to `b` for each answer. A backend that has failed
            is left alone, so there may be fewer.
        loses_worker: the loss of a worker counts as a failed attempt.
        has_later: half of the prompts come after the trouble.
        cuts_each: answer n is cut at its token n, at the first server that it asks.
    """

    name: str
    what: str
    calls: tuple[int, int]
    happens: Callable[[Scene], Awaitable[None]] | None = None
    recovers: Callable[[Scene], Awaitable[None]] | None = None
    is_before: bool = False
    script: dict[str, Any] = field(default_factory=dict)
    cuts_each: bool = False
    loses_worker: bool = False
    has_later: bool = False


async def _kill(scene: Scene) -> None:
    await scene.keep_calls()
    scene.a.kill()


async def _start(scene: Scene) -> None:
    await scene.a.start()


async def _restart(scene: Scene) -> None:
    await _kill(scene)
    await scene.a.start()


async def _freeze(scene: Scene) -> None:
    scene.a.freeze()


async def _thaw(scene: Scene) -> None:
    scene.a.thaw()


async def _throttle(scene: Scene) -> None:
    await scene.a.refuse(429)


async def _drain(scene: Scene) -> None:
    await scene.a.refuse(503)


async def _accept(scene: Scene) -> None:
    await scene.a.refuse(0)


async def _kill_with_workers(scene: Scene) -> None:
    await _kill(scene)
    scene.deployment.workers[0].kill()


async def _heal(scene: Scene) -> None:
    await scene.a.start()
    await scene.deployment.heal()


SLOW = {"tokens": 40, "delay_s": 0.02}
FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "cut", "answer *n* is cut at its token *n*", (1, 1), cuts_each=True,
            script={"tokens": 60, "fault": "cut", "fault_without_prefix": True},
        ),
        Fault("killed", "`a` is killed while it writes", (1, 1), _kill, _start, script=SLOW),
        Fault(
            "prefill", "`a` is killed before the first token", (1, 1), _kill, _start,
            script={**SLOW, "first_delay_s": DEADLINE_S},
        ),
        Fault("dead", "`a` is down", (0, 1), _kill, _start, is_before=True),
        Fault("frozen", "`a` is frozen while it writes", (1, 1), _freeze, _thaw, script=SLOW),
        Fault(
            "restarted", "`a` is killed and started again at once", (1, 1), _restart, script=SLOW
        ),
        Fault(
            "drained", "`a` drains: it ends what it has, and refuses the other half (503)", (1, 1),
            _drain, _accept, script=SLOW, has_later=True,
        ),
        Fault("throttled", "`a` answers 429", (1, 1), _throttle, _accept, is_before=True),
        Fault(
            "worker", "`a` and one of two workers are killed while they write", (1, 2),
            _kill_with_workers, _heal, script=SLOW, loses_worker=True,
        ),
    )
}  # fmt: skip


def models_file(a: ModelServer, b: ModelServer) -> str:
    tables = (TABLE.format(fault=name, a=a.base_url, b=b.base_url) for name in FAULTS)
    return "".join(tables)


@dataclass
class Played:
    """What one fault did to its answers.

    Attributes:
        takeovers: attempts beyond the first of each answer. A worker that stands still for longer
            than its lease loses its answers too, and the next worker asks the same backend again.
    """

    fault: Fault
    answers: int
    calls_a: int
    calls_b: int
    failures: int
    takeovers: int
    resets: int
    longest_gap_s: float

    def row(self) -> str:
        """Return a row of the table. A run that returns has no reader with another text."""
        return (
            f"| {self.fault.what} | {self.answers} | {self.answers} of {self.answers}"
            f" | {self.resets} | {self.calls_a} + {self.calls_b} | {self.takeovers}"
            f" | {self.failures}"
            f" | {self.longest_gap_s:.2f} |"
        )


async def play(
    scene: Scene,
    fault: Fault,
    answers: int,
    *,
    at_once: int = 50,
    script: Mapping[str, Any] | None = None,
) -> Played:
    """Play `answers` answers through one fault, and audit every reader.

    Args:
        at_once: answers that run at the same time, where no server is in trouble as a whole.
        script: further members of the script of each answer.

    Raises:
        AssertionError: a reader got another text, an event twice, or none.
    """
    prompts = [f"{fault.name} {n}" for n in range(answers)]
    numbered = list(enumerate(prompts))
    size = at_once if fault.happens is None else answers
    watched: list[WatchedGeneration] = []
    counted: list[tuple[int, int]] = []
    for first in range(0, answers, size):
        some = await _play_some(scene, fault, numbered[first : first + size], script or {})
        watched += some
        counted += [await _counted(scene, answer) for answer in some]
    readings = [reading for answer in watched for reading in answer.readings]
    return Played(
        fault,
        answers,
        await scene.count("a", prompts),
        await scene.count("b", prompts),
        sum(failures for failures, _ in counted),
        sum(takeovers for _, takeovers in counted),
        sum(reading.resets for reading in readings),
        max(reading.longest_gap_s() for reading in readings),
    )


async def _play_some(
    scene: Scene, fault: Fault, numbered: Sequence[tuple[int, str]], more: Mapping[str, Any]
) -> list[WatchedGeneration]:
    async with FaultRun(scene.deployment, deadline_s=DEADLINE_S) as run:
        if fault.is_before and fault.happens is not None:
            await fault.happens(scene)
        count = len(numbered) // 2 if fault.has_later else len(numbered)
        watched = [await _begin(run, fault, n, text, more) for n, text in numbered[:count]]
        if not fault.is_before and fault.happens is not None:
            prompts = [prompt for _, prompt in numbered]
            await _until_under_way(scene, run, fault, watched, prompts)
            await fault.happens(scene)
        watched += [await _begin(run, fault, n, text, more) for n, text in numbered[count:]]
        await run.finish(bound_s=DEADLINE_S)
        if fault.recovers is not None:
            await fault.recovers(scene)
    return watched


async def _begin(
    run: FaultRun, fault: Fault, n: int, prompt: str, more: Mapping[str, Any]
) -> WatchedGeneration:
    script = {"tokens": 20, **fault.script, **more}
    if fault.cuts_each:
        script["fault_at"] = 1 + n % (script["tokens"] - 1)
    body = {"model": fault.name, "prompt": prompt, "params": {"upstream": script}}
    text = expected_text(prompt, script_of({"messages": [], "upstream": script}))
    return await run.start(body, text=text)


async def _until_under_way(
    scene: Scene,
    run: FaultRun,
    fault: Fault,
    watched: Sequence[WatchedGeneration],
    prompts: Sequence[str],
) -> None:
    if "first_delay_s" in fault.script:  # no reader has got anything yet

        async def are_there() -> bool:
            calls = [await scene.count(name, prompts) for name in ("a", "b")]
            return sum(calls) == len(prompts)

        await until(are_there, DEADLINE_S, "every prompt reaches a server")
        return
    for answer in watched:
        await run.read_to(answer, 5)


async def _counted(scene: Scene, answer: WatchedGeneration) -> tuple[int, int]:
    """Return the failures that the generation has counted, and its attempts after the first."""
    redis = scene.deployment.redis()
    try:
        found = await redis.hmget(keys.meta(answer.id), "failures", "begins")
        return int(found[0] or 0), int(found[1] or 1) - 1
    finally:
        await redis.aclose()
