"""Measures the cost of the turns of owners, and the gain of an owner beside a long queue.

The cost: the same prompts, one after the other and in a long queue, go to a system without
credentials, which has no turns, and to a system with keys, whose owners take turns. The gain: the
first token of an owner while another owner has one prompt waiting, and while it has 2,000.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.first_token import connected, first_token_ms
from bench.support.answer import Answer, new_answers
from bench.support.cpu import cpu_s
from bench.support.load import post
from bench.support.setup import Setup, address
from bench.support.system import System
from bench.support.table import US, Comparison, Row, percentile
from shared.redis import keys
from tests.support.processes import Role

WITHOUT, WITH = "without turns", "with turns"
KEYS = {WITHOUT: "", WITH: "key-of-alice-0123456789:alice,key-of-bob-012345678901:bob"}
ALICE, BOB = "key-of-alice-0123456789", "key-of-bob-012345678901"
GOAL = 1.3  # times the CPU without turns
DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Size:
    """The sizes of a run.

    Attributes:
        prompts: one after the other; before them `warm` ones.
        queued: prompts of the long queue, of which `slots` run at once for `each_s` each.
        beside: prompts of the other owner that are measured beside each queue.
        idle_s: for which the idle system is measured.
    """

    prompts: int
    warm: int
    queued: int
    slots: int
    each_s: float
    beside: int
    idle_s: float


FULL = Size(400, 20, 2_000, 8, 0.02, 5, 1.0)
QUICK = Size(5, 1, 20, 2, 0.01, 2, 0.05)


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    size, goals = QUICK if setup.is_quick else FULL, {WITH: GOAL}
    single = Comparison("Redis: CPU of one prompt of two tokens", "µs", WITHOUT, goals)
    queued = Comparison(f"the same in a queue of {size.queued:,}", "µs", WITHOUT, goals)
    first = Comparison("first token of a POST, idle worker: p50", "ms", WITHOUT)
    one, many = "another owner has 1 prompt waiting", f"another owner has {size.queued:,} waiting"
    beside = Comparison("first token of an owner's prompt, all slots taken: p50", "ms", one)
    for _ in setup.rounds():
        for who, api_keys in KEYS.items():
            await setup.quiet()
            async with _system(setup, size, api_keys) as system, system.node() as node:
                prompt_us, took_ms = await _one_by_one(setup, system, node, size)
                queued.add(who, await _in_a_queue(system, node, size))
                if who == WITH:
                    for name, waiting in ((one, 1), (many, size.queued)):
                        beside.add(name, await _beside(system, node, size, waiting))
            single.add(who, prompt_us)
            first.add(who, percentile(took_ms, 0.5))
    return [row for comparison in (single, queued, first, beside) for row in comparison.rows()]


def _system(setup: Setup, size: Size, api_keys: str) -> System:
    settings = {"api_keys": api_keys} if api_keys else {}
    return System(setup.upstream.base_url, worker_slots=str(size.slots), **settings)


async def _one_by_one(
    setup: Setup, system: System, node: Role, size: Size
) -> tuple[float, list[float]]:
    """Return Redis's µs per prompt, and the milliseconds to each first token."""
    async with connected(address(node)) as (reader, writer):
        answers = new_answers(size.warm + size.prompts, tokens=2)
        began_s = used_s = 0.0
        took_ms: list[float] = []
        for n, answer in enumerate(answers):
            if n == size.warm:
                began_s, used_s = time.monotonic(), cpu_s(system.redis_pid)
                took_ms.clear()
            took_ms.append(await first_token_ms(reader, writer, _request(answer, ALICE), answer))
        busy_s, lasted_s = cpu_s(system.redis_pid) - used_s, time.monotonic() - began_s
        await setup.upstream.times(answers)
    return US * (busy_s - await _idle_share(system, size) * lasted_s) / size.prompts, took_ms


async def _idle_share(system: System, size: Size) -> float:
    """Return the CPU seconds that Redis needs each second beside an idle worker and node."""
    used_s = cpu_s(system.redis_pid)
    await asyncio.sleep(size.idle_s)
    return (cpu_s(system.redis_pid) - used_s) / size.idle_s


async def _in_a_queue(system: System, node: Role, size: Size) -> float:
    """Return Redis's µs per prompt, from the POST to the end."""
    idle_share = await _idle_share(system, size)
    began_s, used_s = time.monotonic(), cpu_s(system.redis_pid)
    await _queue(node, new_answers(size.queued, tokens=2, first_s=size.each_s))
    await system.all_ended(DEADLINE_S)
    busy_s, lasted_s = cpu_s(system.redis_pid) - used_s, time.monotonic() - began_s
    return US * (busy_s - idle_share * lasted_s) / size.queued


async def _beside(system: System, node: Role, size: Size, waiting: int) -> float:
    """Return the median milliseconds to the first token, with so many prompts of another owner."""
    took_ms: list[float] = []
    for answer in new_answers(size.beside, tokens=2):
        await _queue(node, new_answers(size.slots + waiting, tokens=2, first_s=10 * size.each_s))
        async with connected(address(node)) as (reader, writer):
            took_ms.append(await first_token_ms(reader, writer, _request(answer, BOB), answer))
        await _drop_all(system, node)
    return percentile(took_ms, 0.5)


async def _queue(node: Role, answers: Sequence[Answer]) -> None:
    headers = {"authorization": f"Bearer {ALICE}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def ask(answer: Answer) -> None:
            async with http.post(f"{node.url}/v1/generations", json=answer.body()) as reply:
                reply.raise_for_status()

        async with asyncio.TaskGroup() as group:
            for answer in answers:
                group.create_task(ask(answer))


async def _drop_all(system: System, node: Role) -> None:
    """Cancel all generations that wait or run."""
    headers = {"authorization": f"Bearer {ALICE}"}
    async with aiohttp.ClientSession(headers=headers) as http:

        async def cancel(generation_id: bytes) -> None:
            url = f"{node.url}/v1/generations/{generation_id.decode()}/cancel"
            async with http.post(url):
                pass  # 404: it is the other owner's, and ends by itself

        async with asyncio.timeout(DEADLINE_S):
            while left := _unfinished(system):
                async with asyncio.TaskGroup() as group:
                    for generation_id in left:
                        group.create_task(cancel(generation_id))


def _unfinished(system: System) -> list[bytes]:
    left: list[bytes] = []
    for name in (keys.waiting("interactive"), keys.running()):
        members: Any = system.redis.zrange(name, 0, -1)
        left += members
    return left


def _request(answer: Answer, key: str) -> bytes:
    raw = post("/v1/generations", answer.body()).first
    line = f"host: localhost\r\nauthorization: Bearer {key}\r\n".encode()
    return raw.replace(b"host: localhost\r\n", line, 1)
