"""A `Pipeline` on a cluster: each call goes to the master of its slot, on one packed connection.

One `AutoPipeline` per master carries the calls of all tasks that share this pipeline. redirects.py
decides what follows each reply; this module sends. topology.py has the slot map, which is never
read while a call could go on without it.

Invariant: the loss of one master is an error of its own calls only. Their replies are
ConnectionErrors, which `Scripts` takes for a refusal; the replies of the other calls stand. If all
calls of an exchange are lost, the exchange raises Unavailable, as on a single server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.config.redis_hosts import HostPort
from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.client import Command
from shared.redis.cluster.redirects import Redirects, Target
from shared.redis.cluster.slot_map import SlotMap
from shared.redis.cluster.slots import command_slot, key_slot, keys_slot
from shared.redis.cluster.topology import Topology, topology_of
from shared.redis.pipeline import Call
from shared.redis.resp import AutoPipeline, NeverSent, as_bytes, encode_call
from shared.redis.wire import encode
from shared.text.addresses import format_authority

ASKING = encode([b"ASKING"])
AWAY = "the shard does not answer"
MULTI, EXEC = encode([b"MULTI"]), encode([b"EXEC"])


class _Batch(NamedTuple):
    """The calls of one exchange: their state, their bytes, and the digests of scripts.

    Attributes:
        widths: how many replies each call has; more than one for a transaction.
    """

    calls: Redirects
    requests: list[bytes]
    digests: list[str]
    widths: list[int]


class ClusterPipeline:
    """Calls on all masters of a cluster.

    Args:
        url: names nodes of the cluster.
        answer_s: the longest time until the last reply of one exchange, s.
        source_of: returns the source of a script by its digest; None: the topology's.

    Attributes:
        losses: of all connections, as `Pipeline` says.
    """

    def __init__(
        self,
        url: RedisUrl,
        *,
        answer_s: float,
        source_of: Callable[[str], bytes | None] | None = None,
    ) -> None:
        self._url = url
        self._answer_s = answer_s
        self._own_source_of = source_of
        self._nodes: dict[HostPort, AutoPipeline] = {}
        self._nodes_of_changes = 0  # `SlotMap.changes` when `_nodes` was last compared
        self._lost_before = 0  # losses of nodes that are gone
        self._forget_away: Callable[[], None] = lambda: None

    @cached_property
    def topology(self) -> Topology:
        topology = topology_of(self._url)  # needs the running loop
        self._forget_away = topology.states.on_away(self._drop)
        return topology

    def _drop(self, address: HostPort) -> None:
        """Let the calls in flight fail: this master does not answer."""
        if (node := self._nodes.get(address)) is not None:
            node.drop()

    @property
    def slot_map(self) -> SlotMap:
        return self.topology.slot_map

    def place_of(self, key: str) -> HostPort | None:
        """Return the master of a key; None: it is not known."""
        return self.slot_map.master_of(key_slot(key.encode()))

    @property
    def losses(self) -> int:
        return self._lost_before + sum(node.losses for node in self._nodes.values())

    def _source_of(self, digest: str) -> bytes | None:
        return (self._own_source_of or self.topology.sources.get)(digest)

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

    async def run_at(self, address: HostPort, command: Command) -> Any:
        """Run a command without a key at one master, and return its reply.

        Raises:
            Unavailable: this master did not answer, or refused.
        """
        if self.topology.states.is_away(address):
            raise Unavailable(AWAY)
        (reply,) = await self._node(address).run([command])
        if isinstance(reply, Exception):
            raise Unavailable(f"Redis refuses: {reply}") from reply
        return reply

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands on keys of one slot as one transaction, and return their replies.

        While the slot moves, the transaction is refused with TRYAGAIN: the server that has some of
        the keys already would need an ASKING before each command.

        Raises:
            Unavailable: a reply did not come in time; the transaction may have happened.
            redis.exceptions.ResponseError: it was refused, and nothing happened.
        """
        requests = [encode(map(as_bytes, command)) for command in commands]
        slots = {slot for command in commands if (slot := command_slot(command)) is not None}
        assert len(slots) == 1, f"a transaction on {len(slots)} slots"
        whole = b"".join([MULTI, *requests, EXEC])
        (reply,) = await self._exchange([whole], [*slots], [""], widths=[len(commands) + 2])
        if isinstance(reply, Exception):
            raise reply
        return list(reply)

    async def _exchange(
        self,
        requests: list[bytes],
        slots: list[int | None],
        digests: list[str],
        *,
        widths: list[int] | None = None,
    ) -> list[Any]:
        loop, topology, slot_map = asyncio.get_running_loop(), self.topology, self.slot_map
        if not slot_map.version:
            await topology.read(0)
        elif slot_map.is_doubtful(slots):
            await topology.try_to_read(slot_map.version)
        calls = Redirects(slots, slot_map, deadline_s=loop.time() + self._answer_s)
        batch = _Batch(calls, requests, digests, widths or [1] * len(requests))
        while not calls.is_done:
            version = slot_map.version
            due = calls.due(loop.time())
            if len(due) == 1:  # a task costs more than the call
                ((target, indices),) = due.items()
                await self._send(batch, target, indices)
            elif due:
                async with asyncio.TaskGroup() as group:
                    for target, indices in due.items():
                        group.create_task(self._send(batch, target, indices))
            if slot_map.is_stale:
                await topology.try_to_read(version)
            if not calls.is_done and (pause_s := calls.pause_s(loop.time())):
                await asyncio.sleep(pause_s)
        if self._nodes_of_changes != slot_map.changes:
            await self._drop_former()
        if calls.lost and len(calls.lost) == len(requests):
            raise Unavailable(str(calls.replies[0])) from calls.replies[0]
        return calls.replies

    async def _send(self, batch: _Batch, target: Target, indices: list[int]) -> None:
        """Send calls to one server in one write, and give their replies to the batch's calls."""
        calls, widths, states = batch.calls, batch.widths, self.topology.states
        if states.is_away(target.address):
            calls.lose(indices, target, _lost(target, Unavailable(AWAY)))
            return
        requests: list[bytes] = []
        places: list[int] = []  # of the first reply of each call
        count = 0
        for index in indices:
            if calls.needs_script(index) and (source := self._source_of(batch.digests[index])):
                requests.append(encode([b"SCRIPT", b"LOAD", source]))
                count += 1
            if target.is_asking:  # holds for the next command of the connection only
                requests.append(ASKING)
                count += 1
            places.append(count)
            requests.append(batch.requests[index])
            count += widths[index]
        version = self.slot_map.version
        try:
            replies = await self._node(target.address).exchange(b"".join(requests), count)
        except NeverSent as exc:
            states.note_error(target.address)
            self.slot_map.note_lost(target.address)
            await self.topology.try_to_read(version)
            calls.never_sent(indices, target, _lost(target, exc))
        except Unavailable as exc:
            self.slot_map.note_lost(target.address)
            states.note_error(target.address)
            calls.lose(indices, target, _lost(target, exc))
        else:
            self.slot_map.note_answer(target.address)
            now = asyncio.get_running_loop().time()
            for index, place in zip(indices, places, strict=True):
                reply = replies[place]
                if widths[index] > 1:
                    reply = _outcome(replies[place : place + widths[index]])
                calls.take(index, target, reply, now)

    def _node(self, address: HostPort) -> AutoPipeline:
        if address not in self._nodes:
            url = self.topology.url_of(address)
            self._nodes[address] = AutoPipeline(url, answer_s=self._answer_s)
        return self._nodes[address]

    async def _drop_former(self) -> None:
        """Close the connections to servers that have no slot any more."""
        self._nodes_of_changes = self.slot_map.changes
        used = self.topology.addresses
        for address in [address for address in self._nodes if address not in used]:
            node = self._nodes.pop(address)
            await node.aclose()
            self._lost_before += node.losses

    async def aclose(self) -> None:
        """Close all connections."""
        self._forget_away()
        self._forget_away = lambda: None
        for node in self._nodes.values():
            await node.aclose()


@lru_cache(maxsize=4_096)
def _call_slot(keys: tuple[str, ...]) -> int | None:
    """Return the slot of keys, which repeat in every append of a generation."""
    return keys_slot(keys)


def _outcome(replies: list[Any]) -> Any:
    """Return the reply of a transaction: the list of EXEC, or the first refusal."""
    reply = next((each for each in replies if isinstance(each, Exception)), replies[-1])
    if isinstance(reply, ResponseError) and str(reply).startswith("ASK "):
        return ResponseError("TRYAGAIN the slot of this transaction moves")
    return reply


def _lost(target: Target, exc: Unavailable) -> RedisConnectionError:
    return RedisConnectionError(f"{format_authority(*target.address)}: {exc}")
