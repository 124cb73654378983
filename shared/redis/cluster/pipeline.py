"""A `Pipeline` on a cluster: each call goes to the master of its slot, on one packed connection.

One `AutoPipeline` per master carries the calls of all tasks of a process. redirects.py decides what
follows each reply; this module sends, and reads the slot map. The map is read again at most once
for all exchanges that met the same mistake, and never while a call could go on without it.

Invariant: the loss of one master is an error of its own calls only. Their replies are
ConnectionErrors, which `Scripts` takes for a refusal; the replies of the other calls stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.config.redis_hosts import HostPort, named_host
from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.client import Command
from shared.redis.cluster.redirects import Redirects, Target
from shared.redis.cluster.slot_map import SlotMap
from shared.redis.cluster.slots import command_slot, keys_slot
from shared.redis.pipeline import Call
from shared.redis.resp import AutoPipeline, NeverSent, as_bytes, encode_call
from shared.redis.wire import encode

MAP_READ_S = 1.0  # for one server to answer CLUSTER SLOTS
NODES_ASKED_MAX = 4  # servers that are asked for the map in one reading
ASKING = encode([b"ASKING"])


class _Batch(NamedTuple):
    """The calls of one exchange: their state, their bytes, and the digests of scripts."""

    calls: Redirects
    requests: list[bytes]
    digests: list[str]


class ClusterPipeline:
    """Calls on all masters of a cluster.

    Args:
        url: names nodes of the cluster.
        answer_s: the longest time until the last reply of one exchange, s.
        source_of: returns the source of a script by its digest; None: unknown here.

    Attributes:
        losses: of all connections, as `Pipeline` says.
    """

    def __init__(
        self,
        url: RedisUrl,
        *,
        answer_s: float,
        source_of: Callable[[str], bytes | None] = lambda digest: None,
    ) -> None:
        self._url = url
        self._answer_s = answer_s
        self._source_of = source_of
        self._map = SlotMap()
        self._reading = asyncio.Lock()
        self._told: HostPort | None = None  # the server that told the map last
        self._nodes: dict[HostPort, AutoPipeline] = {}
        self._lost_before = 0  # losses of nodes that are gone

    @property
    def slot_map(self) -> SlotMap:
        return self._map

    @property
    def losses(self) -> int:
        return self._lost_before + sum(node.losses for node in self._nodes.values())

    async def evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run scripts, each at the master of its keys. Raises Unavailable: no map can be read."""
        requests = [encode_call(digest, call) for digest, call in calls]
        slots = [_call_slot(tuple(keys)) for _, (keys, _) in calls]
        return await self._exchange(requests, slots, [digest for digest, _ in calls])

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands, each at the master of its key. Raises Unavailable: no map can be read."""
        requests = [encode(map(as_bytes, command)) for command in commands]
        digests = [str(command[1]) if command[0] == "EVALSHA" else "" for command in commands]
        return await self._exchange(requests, list(map(command_slot, commands)), digests)

    async def _exchange(
        self, requests: list[bytes], slots: list[int | None], digests: list[str]
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        if not self._map.version:
            await self._read_map(0)
        elif self._map.is_doubtful(slots):
            await self._try_to_read_map(self._map.version)
        calls = Redirects(slots, self._map, deadline_s=loop.time() + self._answer_s)
        batch = _Batch(calls, requests, digests)
        while not calls.is_done:
            version = self._map.version
            due = calls.due(loop.time())
            if len(due) == 1:  # a task costs more than the call
                ((target, indices),) = due.items()
                await self._send(batch, target, indices)
            elif due:
                async with asyncio.TaskGroup() as group:
                    for target, indices in due.items():
                        group.create_task(self._send(batch, target, indices))
            if self._map.is_stale and not calls.is_done:
                await self._try_to_read_map(version)
            if not calls.is_done and (pause_s := calls.pause_s(loop.time())):
                await asyncio.sleep(pause_s)
        if self._map.is_stale:
            await self._try_to_read_map(self._map.version)
        return calls.replies

    async def _send(self, batch: _Batch, target: Target, indices: list[int]) -> None:
        """Send calls to one server in one write, and give their replies to the batch's calls."""
        calls = batch.calls
        requests: list[bytes] = []
        places: list[int] = []  # of the calls' own replies
        for index in indices:
            if calls.needs_script(index) and (source := self._source_of(batch.digests[index])):
                requests.append(encode([b"SCRIPT", b"LOAD", source]))
            if target.is_asking:  # holds for the next command of the connection only
                requests.append(ASKING)
            places.append(len(requests))
            requests.append(batch.requests[index])
        version = self._map.version
        try:
            node = self._node(target.address)
            replies = await node.exchange(b"".join(requests), len(requests))
        except NeverSent as exc:
            self._map.note_lost(target.address)
            await self._try_to_read_map(version)
            calls.never_sent(indices, target, _lost(target, exc))
        except Unavailable as exc:
            calls.lose(indices, target, _lost(target, exc))
        else:
            now = asyncio.get_running_loop().time()
            for index, place in zip(indices, places, strict=True):
                calls.take(index, target, replies[place], now)

    def _node(self, address: HostPort) -> AutoPipeline:
        if address not in self._nodes:
            url = self._url._replace(host=address[0], port=address[1], cluster=())
            self._nodes[address] = AutoPipeline(url, answer_s=self._answer_s)
        return self._nodes[address]

    # The slot map

    async def _try_to_read_map(self, version: int) -> None:
        try:
            await self._read_map(version)
        except Unavailable:
            pass  # the map stays stale, and the next exchange tries again

    async def _read_map(self, version: int) -> None:
        """Read the map, unless another exchange has read a newer one than `version` meanwhile.

        Raises:
            Unavailable: no server answered.
        """
        async with self._reading:
            if self._map.version > version:
                return
            reasons = []
            for address in self._nodes_to_ask():
                try:
                    async with asyncio.timeout(MAP_READ_S):
                        (reply,) = await self._node(address).run([["CLUSTER", "SLOTS"]])
                    if isinstance(reply, ResponseError):
                        raise ValueError(str(reply))
                    self._map.read(reply, address)
                    self._told = address
                except (Unavailable, TimeoutError, ValueError) as exc:
                    reasons.append(f"{named_host(*address)}: {exc or 'no answer in time'}")
                else:
                    await self._drop_former()
                    return
            raise Unavailable("; ".join(["no node of the cluster tells its slots", *reasons]))

    def _nodes_to_ask(self) -> list[HostPort]:
        """Return whom to ask for the map: first the server that told it last, lost ones last."""
        known = [self._told, *self._map.masters, *self._url.cluster]
        found = [address for address in dict.fromkeys(known) if address is not None]
        found.sort(key=lambda address: address in self._map.lost)
        return found[:NODES_ASKED_MAX]

    async def _drop_former(self) -> None:
        """Close the connections to servers that have no slot any more."""
        used = {*self._map.masters, *self._url.cluster}
        for address in [address for address in self._nodes if address not in used]:
            node = self._nodes.pop(address)
            await node.aclose()
            self._lost_before += node.losses

    async def aclose(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            await node.aclose()


@lru_cache(maxsize=4_096)
def _call_slot(keys: tuple[str, ...]) -> int | None:
    """Return the slot of keys, which repeat in every append of a generation."""
    return keys_slot(keys)


def _lost(target: Target, exc: Unavailable) -> RedisConnectionError:
    return RedisConnectionError(f"{named_host(*target.address)}: {exc}")
