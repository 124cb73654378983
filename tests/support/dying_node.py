"""A node that dies while it accepts a prompt: `python -m tests.support.dying_node api`.

The prompt says where: after the idempotency key is taken, after the queue entry is added, or after
the generation is created, in each case before anybody is told. A death is SIGKILL. Everything else
is the real node: the product has no hooks.
"""

from __future__ import annotations

import sys

import api.server
from shared.config.settings import Settings
from shared.queue.accept import Acceptor, NewGeneration
from shared.queue.idempotency import Reservation
from tests.support.faulty_worker import die

DEATHS = ("die after the key", "die after the entry", "die after the creation")


class DyingAcceptor(Acceptor):
    """Takes a step, and dies before the next one."""

    async def _reserve(self, new: NewGeneration, generation_id: str) -> Reservation:
        reserved = await super()._reserve(new, generation_id)
        self._die_at(DEATHS[0], new)
        return reserved

    async def _enqueue(self, generation_id: str, new: NewGeneration) -> None:
        await super()._enqueue(generation_id, new)
        self._die_at(DEATHS[1], new)

    async def _index(self, generation_id: str, new: NewGeneration, created_at_ms: int) -> None:
        self._die_at(DEATHS[2], new)
        await super()._index(generation_id, new, created_at_ms)

    def _die_at(self, death: str, new: NewGeneration) -> None:
        if death.encode() in new.request:
            die()


if __name__ == "__main__":
    api.server.Acceptor = DyingAcceptor  # type: ignore[misc]
    sys.exit(api.server.serve(Settings.from_env()))
