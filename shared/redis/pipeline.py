"""The pipeline: many calls to Redis in one round trip, on whatever connections there are.

`Pipeline` is the protocol that the store, the queue and acceptance speak. Its implementations:

* `AutoPipeline` (shared/redis/resp.py) packs the calls of all tasks onto one socket of its own. API
  nodes and workers use it, because every token passes through it.
* `ClientPipeline` sends each exchange through redis-py's pool. Everything else uses it.

Invariant: replies come in the order of the calls. An error reply stands in the place of its call,
so one refused call does not hide the replies of the others. The pipeline knows no script and no
key: shared/redis/scripts turns names into digests and loads a script that Redis has forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from redis.exceptions import ResponseError

from shared.redis.client import Client, Command, translated

Call = tuple[Sequence[str], Sequence[Any]]  # the keys and the arguments of one script call


class Pipeline(Protocol):
    """Sends calls in one round trip; replies in order, error replies among them.

    Attributes:
        losses: how often an open connection was lost or dropped. If the number is the same before
            and after several exchanges, they all ran on one connection, so on one server.
    """

    @property
    def losses(self) -> int: ...

    async def evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run scripts: (SHA-1 digest, call) each, as EVALSHA does.

        Raises:
            Unavailable: a reply did not come in time; each call may have happened.
        """
        ...

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run plain commands.

        Raises:
            Unavailable: a reply did not come in time; each command may have happened.
        """
        ...


class ClientPipeline:
    """A `Pipeline` through redis-py: each exchange takes a connection of the client's pool."""

    losses = 0  # not counted: each exchange may take another connection of the pool

    def __init__(self, redis: Client) -> None:
        self._redis = redis

    async def evaluate(self, calls: Sequence[tuple[str, Call]]) -> list[Any]:
        """Run scripts. Raises Unavailable as `Pipeline.evaluate`."""
        return await self.run(
            [("EVALSHA", digest, len(keys), *keys, *args) for digest, (keys, args) in calls]
        )

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands. Raises Unavailable as `Pipeline.run`."""
        with translated():
            if len(commands) == 1:  # a pipeline of one costs more than the command
                try:
                    return [await self._redis.execute_command(*commands[0])]  # type: ignore[no-untyped-call]
                except ResponseError as exc:
                    return [exc]
            pipeline = self._redis.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
