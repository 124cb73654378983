"""A `Client` of a cluster: redis-py's methods, whose commands go to the masters by slot.

redis-py has a cluster client of its own. Tailrace does not use that client, because it repeats
commands by itself, which only the caller may decide, and because it keeps a second slot map. Here
every command, pipeline and transaction goes through a `ClusterPipeline`; redis-py only builds the
words of the commands and reads the replies.

    command with a key        to the master of its slot
    pipeline                  one write to each master; replies in order
    transaction               keys of one slot
    blocking command          on a connection that carries nothing else meanwhile
    SCAN                      master after master
    PUBLISH, SUBSCRIBE        any master: the servers pass the message on. For rare messages only
    TIME, PING, INFO, EVAL without keys   any master that answers

Invariant: the pool of redis-py has no connection, so every command follows the rules above.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.client import EMPTY_RESPONSE
from redis.exceptions import RedisError, ResponseError

from shared.config.redis_url import RedisUrl
from shared.errors import Unavailable
from shared.redis.client import Client, Command, open_pool
from shared.redis.cluster.pipeline import ClusterPipeline
from shared.redis.cluster.topology import Topology

BLOCKING_WITH_SECONDS = frozenset({"BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX"})  # the last word
NODE_BITS = 10  # of a cursor of SCAN: the number of the master
NODES_MAX = 2**NODE_BITS


class ClusterClient(Redis):
    """A client of all masters.

    Args:
        url: names nodes of the cluster.
        answer_s: the longest wait for one reply, s.
    """

    is_sharded = True  # for `Scripts`: publish with SPUBLISH

    def __init__(self, url: RedisUrl, *, answer_s: float) -> None:
        super().__init__(connection_pool=ConnectionPool())
        self.url = url
        self._answer_s = answer_s
        self._pipeline = ClusterPipeline(url, answer_s=answer_s)
        self._blocking: list[tuple[float, ClusterPipeline]] = []  # not in use now

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        del close_connection_pool
        blocking, self._blocking = self._blocking, []
        for pipeline in (self._pipeline, *(each for _, each in blocking)):
            await pipeline.aclose()

    @property
    def topology(self) -> Topology:
        return self._pipeline.topology

    async def masters(self) -> list[RedisUrl]:
        """Return the URL of each master, in a stable order.

        Raises:
            Unavailable: no server of the cluster tells its slots.
        """
        topology = self._pipeline.topology
        await topology.read(topology.slot_map.version)
        return [topology.url_of(address) for address in topology.slot_map.masters]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command, and return its reply in redis-py's form.

        Raises:
            redis.exceptions.RedisError: the server refused, or its reply was lost.
            Unavailable: no server answered.
        """
        command = _words(args)
        if (block_s := _block_s(command)) is None:
            (reply,) = await self._pipeline.run([command])
        else:
            reply = await self._run_blocking(command, block_s)
        return self._parsed(args[0], reply, options)

    async def _run_blocking(self, command: Command, block_s: float) -> Any:
        answer_s = block_s + self._answer_s
        known = next((each for each in self._blocking if each[0] == answer_s), None)
        if known is None:
            known = answer_s, ClusterPipeline(self.url, answer_s=answer_s)
        else:
            self._blocking.remove(known)
        try:
            (reply,) = await known[1].run([command])
        except BaseException:
            await known[1].aclose()  # the command may still wait there
            raise
        self._blocking.append(known)
        return reply

    def _parsed(self, name: str, reply: Any, options: Mapping[str, Any]) -> Any:
        """Return a reply as redis-py's `parse_response` does. Raises an error reply."""
        if isinstance(reply, ResponseError) and EMPTY_RESPONSE in options:
            return options[EMPTY_RESPONSE]
        if isinstance(reply, Exception):
            raise reply
        given = {key: value for key, value in options.items() if key not in UNUSED_OPTIONS}
        parse = self.response_callbacks.get(name)
        return reply if parse is None else parse(reply, **given)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> ClusterBatch:
        """Return a pipeline. As a transaction, all its keys are of one slot."""
        del shard_hint
        return ClusterBatch(self, is_transaction=transaction)

    async def run_many(
        self, commands: Sequence[tuple[Any, Mapping[str, Any]]], *, is_transaction: bool
    ) -> list[Any]:
        """Run commands of a `ClusterBatch`; errors stand among the replies."""
        words = [_words(args) for args, _ in commands]
        run = self._pipeline.transact if is_transaction else self._pipeline.run
        replies: list[Any] = []
        for (args, options), reply in zip(commands, await run(words), strict=True):
            try:
                replies.append(self._parsed(args[0], reply, options))
            except (RedisError, OSError) as exc:
                replies.append(exc)
        return replies

    # Commands that mean something else on a cluster

    def pubsub(self, **options: Any) -> PubSub:
        """Return plain channels of any master. Not for sharded channels.

        Raises:
            Unavailable: no command has run yet, so that no master is known.
        """
        topology = self._pipeline.topology
        if (master := topology.slot_map.master_of(None)) is None:
            raise Unavailable("no master of the cluster is known")
        return PubSub(open_pool(topology.url_of(master), answer_s=self._answer_s), **options)

    async def script_load(self, script: Any) -> str:
        """Keep a script for all masters: each gets it when it first answers NOSCRIPT."""
        source = script.encode() if isinstance(script, str) else bytes(script)
        digest = hashlib.sha1(source).hexdigest()  # Redis's own choice
        self._pipeline.topology.sources[digest] = source
        return digest

    async def scan(  # type: ignore[override]
        self, cursor: int = 0, match: Any = None, count: int | None = None, **_: Any
    ) -> tuple[int, list[bytes]]:
        """Return the next cursor and keys. The cursor 0 begins; 0 in the result: all were seen.

        A master that does not answer is passed over, so its keys do not come. If the masters change
        in between, keys may come twice or not at all.

        Raises:
            Unavailable: no server of the cluster tells its slots.
        """
        topology = self.topology
        if not topology.slot_map.version:
            await topology.read(0)
        number, cursor = cursor % NODES_MAX, cursor // NODES_MAX
        masters = topology.slot_map.masters[:NODES_MAX]
        if number >= len(masters):
            return 0, []
        words: list[Any] = ["SCAN", cursor]
        words += [] if match is None else ["MATCH", match]
        words += [] if count is None else ["COUNT", count]
        cursor, names = 0, []
        with suppress(Unavailable):
            found, names = await self._pipeline.run_at(masters[number], words)
            cursor = int(found)
        if not cursor:
            number = (number + 1) % len(masters)
        return cursor * NODES_MAX + number, names


UNUSED_OPTIONS = (EMPTY_RESPONSE, "keys", "NEVER_DECODE")


class ClusterBatch(Pipeline):
    """redis-py's pipeline, which runs through the client of the cluster."""

    def __init__(self, client: ClusterClient, *, is_transaction: bool) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, is_transaction, None)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run the commands, and forget them.

        Raises:
            redis.exceptions.RedisError: the first error among the replies, if `raise_on_error`.
            Unavailable: no server answered.
        """
        commands, self.command_stack = self.command_stack, []
        if not commands:
            return []
        replies = await self._client.run_many(commands, is_transaction=self.is_transaction)
        if raise_on_error:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


def cluster_of(redis: Client) -> ClusterClient | None:
    """Return the client of a cluster; None: this is the client of one server."""
    return redis if isinstance(redis, ClusterClient) else None


def _words(args: tuple[Any, ...]) -> list[Any]:
    """Return the words of a command: redis-py writes `XGROUP CREATE` as one."""
    name, *rest = args
    return [*name.split(), *rest] if isinstance(name, str) else [name, *rest]


def _block_s(command: Command) -> float | None:
    """Return how long a command may wait at the server, s; None: it does not."""
    name = str(command[0]).upper()
    if name in BLOCKING_WITH_SECONDS:
        return float(command[-1])
    if name in ("XREAD", "XREADGROUP"):
        for at, word in enumerate(command):
            if str(word).upper() in ("BLOCK", "B'BLOCK'"):
                return float(command[at + 1]) / 1000
    return None
