"""`make soak`: random faults against real processes, every delivery audited.

    python -m tests.soak.run [--seconds 60] [--seed N]

Two nodes, two workers, the jobs role and a Redis with AOF, all real. The soak keeps several answers
running. Two careful readers read each answer, and the history checker judges each of them at its
end. The first line of the output has the seed, the last line the figures; the exit code is 1 if a
promise was broken. The schedule of faults depends on the seed alone.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import redis

from shared.errors import Unavailable
from tests.soak.schedule import KINDS, LOSSY, Fault, schedule
from tests.support.client import Client, NoAnswer
from tests.support.deliveries import Record
from tests.support.demo import demo_body
from tests.support.fault_run import FaultRun, WatchedGeneration
from tests.support.history import check_record
from tests.support.processes import Deployment, Role
from tests.support.proxy import Proxy

LEASE_S = 0.8
ANSWERS_AT_ONCE = 6
BOUND_S = 60.0
SETTLE_S = 15.0
# A node without Redis answers a returning reader with a block that only has `retry:`, as promised.
SENT_AWAY = "a block without data, event, id"
COLUMNS = {"lost": ("gap", "no end", "text of", "not in the log"), "repeated": ("repeat",),
           "reordered": ("order", "attempt"), "silent": ("silent", "after the end")}  # fmt: skip


class Soak:
    """One run."""

    def __init__(
        self, deployment: Deployment, fault_run: FaultRun, proxy: Proxy | None, seed: int
    ) -> None:
        self.deployment = deployment
        self.fault_run = fault_run
        self.proxy = proxy
        self.rng = random.Random(f"answers {seed}")
        self.faults: Counter[str] = Counter()
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.longest_gap_s = 0.0
        self.ends: Counter[str] = Counter()
        self._is_lossy = False
        self._inflicting: set[str] = set()

    # Answers

    async def keep_asking(self, until_s: float) -> None:
        """Start an answer whenever there is room; refusals are tried again by the client."""
        async with asyncio.TaskGroup() as answers:
            room = asyncio.Semaphore(ANSWERS_AT_ONCE)
            while time.monotonic() < until_s:
                await room.acquire()
                answers.create_task(self._answer(room))

    async def _answer(self, room: asyncio.Semaphore) -> None:
        tokens, per_s = self.rng.randint(20, 160), self.rng.choice((20, 40, 80))
        hop_after = self.rng.randint(3, 12)
        try:
            playing = await self.fault_run.start(demo_body(tokens, per_s), hop_after=hop_after)
            await asyncio.gather(*playing.tasks)
            await self._audit(playing)
        except NoAnswer as exc:
            # Refused for the client's whole deadline: nothing was accepted, nothing is owed.
            self.counts["refused"] += 1
            sys.stderr.write(f"refused: {exc}\n")
        finally:
            room.release()

    async def _audit(self, playing: WatchedGeneration) -> None:
        record = playing.record
        self.fault_run.playing.remove(playing)
        ends = [r.end for r in record.readings if r.end is not None]
        statuses = {e.fields.get("status") for e in ends}
        codes = {(e.fields.get("error") or {}).get("code") or e.fields.get("status") for e in ends}
        self.ends.update(map(str, codes))
        if statuses != {"completed"}:
            record.expected_text = None
        is_lost = any(e.event_id == "0-0" for e in ends)
        if not is_lost:
            await self._look_at_redis(record)
        problems = check_record(record, bound_s=BOUND_S)
        problems += [
            fault for reader in playing.readers for fault in reader.faults if fault != SENT_AWAY
        ]
        self.problems += [f"{record.generation_id}: {problem}" for problem in problems]
        self._count(playing, is_lost)
        for problem in problems:
            sys.stderr.write(f"{record.generation_id}: {problem}\n")

    async def _look_at_redis(self, record: Record) -> None:
        """The log and the snapshot, once Redis and a node answer again."""
        async with asyncio.timeout(SETTLE_S):
            while True:
                try:
                    record.log = await self.fault_run._dump(record.generation_id)
                    break
                except (redis.RedisError, OSError, Unavailable):
                    await asyncio.sleep(0.1)
        try:
            async with Client(self.deployment.urls) as client:
                record.snapshot = await client.snapshot(record.generation_id)
        except NoAnswer as exc:
            if not (self._is_lossy and "not_found" in str(exc)):
                raise
            record.log = record.snapshot = None  # an end that Redis has lost since

    def _count(self, playing: WatchedGeneration, is_lost: bool) -> None:
        readings = playing.record.readings
        self.counts["generations"] += 1
        self.counts["gone with redis"] += is_lost
        self.counts["tokens"] += sum(d.type == "token" for r in readings for d in r.deliveries)
        self.counts["resets"] += sum(r.resets for r in readings)
        self.longest_gap_s = max([self.longest_gap_s, *(r.longest_gap_s() for r in readings)])
        if any(r.resets for r in readings) and not self._is_lossy:
            self.problems.append(f"{playing.id}: a reset, though Redis has lost nothing")

    # Faults

    async def inflict(self, seed: int, seconds: float, kinds: Mapping[str, int]) -> None:
        begun = time.monotonic()
        async with asyncio.TaskGroup() as under_way:
            for fault in schedule(seed, seconds, LEASE_S, kinds):
                await asyncio.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
                under_way.create_task(self._inflict(fault))

    async def _inflict(self, fault: Fault) -> None:
        kind, _, what = fault.kind.partition(" ")
        name = f"{kind} {fault.target % 2}" if kind in ("worker", "node") else kind
        if name in self._inflicting:
            return  # still suffering from the last one
        self._inflicting.add(name)
        self.faults[fault.kind] += 1
        self._is_lossy = self._is_lossy or fault.kind in LOSSY
        try:
            await self._act(kind, what, fault)
        finally:
            self._inflicting.discard(name)

    async def _act(self, kind: str, what: str, fault: Fault) -> None:
        acts: dict[str, Callable[[str, Fault], Awaitable[None]]] = {
            "worker": self._hit_worker,
            "node": self._hit_node,
            "redis": self._hit_redis,
            "shard": self._hit_shard,
            "cut": self._cut,
            "cancel": self._cancel,
        }
        await acts[kind](what, fault)

    async def _hit_worker(self, what: str, fault: Fault) -> None:
        await self._hit(self.deployment.workers[fault.target % 2], what, fault.lasts_s)

    async def _hit_node(self, what: str, fault: Fault) -> None:
        await self._hit(self.deployment.api[fault.target % 2], what, fault.lasts_s)

    async def _hit(self, role: Role, what: str, lasts_s: float) -> None:
        if what == "freeze":
            role.freeze()
            await asyncio.sleep(lasts_s)
            role.thaw()
            return
        if what == "kill":
            role.kill()
        else:
            role.terminate()
            code = await role.ended(15)
            if code != 0:
                self.problems.append(f"a drained {role.name} ended with {code}\n{role.stderr()}")
        await asyncio.sleep(lasts_s)
        role.start()
        await role.ready()

    async def _hit_redis(self, what: str, fault: Fault) -> None:
        server = self.deployment.server
        assert server is not None
        if what == "freeze":
            server.freeze()
            await asyncio.sleep(fault.lasts_s)
            server.thaw()
        else:
            server.kill()
            await asyncio.sleep(fault.lasts_s / 2)
            await asyncio.to_thread(server.start)

    async def _hit_shard(self, what: str, fault: Fault) -> None:
        raise NotImplementedError("only a cluster has shards: tests/soak/cluster.py")

    async def _cut(self, what: str, fault: Fault) -> None:
        if self.proxy is not None and what == "through proxy":
            await self.proxy.cut()
            return
        if self.proxy is not None and what == "replies":
            self.proxy.lose_replies()  # the next one: the call has happened, its caller cannot know
            return
        kind = "pubsub" if what.startswith("live") else "normal"
        client = self.deployment.redis()
        try:
            async with asyncio.timeout(3):
                await client.execute_command("CLIENT", "KILL", "TYPE", kind)
        except (redis.RedisError, OSError, TimeoutError, Unavailable):
            pass  # it is away: that is cut enough
        finally:
            await client.aclose()

    async def _cancel(self, what: str, fault: Fault) -> None:
        if self.fault_run.playing:
            playing = self.fault_run.playing[fault.target % len(self.fault_run.playing)]
            try:
                await self.fault_run.cancel(playing)
            except NoAnswer:
                return  # gone with Redis, or nobody to ask

    def line(self) -> str:
        """The one line of figures."""
        bad = {
            column: sum(any(word in problem for word in words) for problem in self.problems)
            for column, words in COLUMNS.items()
        }
        bad["other"] = len(self.problems) - sum(bad.values())
        figures: dict[str, Any] = {**self.counts, **bad}
        figures["longest_gap_s"] = round(self.longest_gap_s, 2)
        said = " ".join(f"{name.replace(' ', '_')}={value}" for name, value in figures.items())
        faults = " ".join(f"{k.replace(' ', '_')}={n}" for k, n in sorted(self.faults.items()))
        ends = " ".join(f"{status}={n}" for status, n in sorted(self.ends.items()))
        return f"{said} | {faults} | {ends}"


async def soak(seed: int, seconds: float) -> int:
    settings = {"retention_s": "120", "redis_outage_s": "8"}
    async with Deployment(api=2, workers=0, jobs=True, lease_s=LEASE_S, settings=settings,
                       is_waiting_for_workers=False) as deployment:  # fmt: skip
        assert deployment.server is not None
        async with Proxy("127.0.0.1", deployment.server.port) as proxy:
            # One worker behind a proxy that can be cut, one straight: they fail apart.
            deployment.add_worker(redis_url=f"redis://127.0.0.1:{proxy.port}/0")
            deployment.add_worker()
            await deployment.ready(deployment.workers)
            async with FaultRun(deployment, deadline_s=BOUND_S) as fault_run:
                return await play(Soak(deployment, fault_run, proxy, seed), seed, seconds, KINDS)


async def play(run: Soak, seed: int, seconds: float, kinds: Mapping[str, int]) -> int:
    """Ask and inflict for so many seconds, print the figures, and return the exit code."""
    async with asyncio.TaskGroup() as parts:
        parts.create_task(run.keep_asking(time.monotonic() + seconds))
        parts.create_task(run.inflict(seed, seconds, kinds))
    print(run.line())
    if run.problems:
        print("\n".join(run.problems[:40]))
        print(run.deployment.report())
    return 1 if run.problems else 0


def arguments(description: str) -> argparse.Namespace:
    """Read the command line, and print the seed."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.seconds:g} s", flush=True)
    return args


def main() -> None:
    args = arguments(__doc__ or "")
    sys.exit(asyncio.run(soak(args.seed, args.seconds)))


if __name__ == "__main__":
    main()
