"""Runs several children in stages: starts them in order and ends them in reverse.

Invariant: when `Supervisor.run` returns, no process of any child's group is left. Must not know
what the children are.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence

from cli.up.keeper import EXIT_CONFIGURATION, Child, Keeper


class Supervisor:
    """Runs stages of children; a stage starts when the one before it is ready.

    Args:
        environ: of every child.
        say: shows a line of the supervisor's own.
        relay: shows a line of a child's: its name and the line.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        say: Callable[[str], None],
        relay: Callable[[str, bytes], None],
    ) -> None:
        self._environ = environ
        self._say = say
        self._relay = relay
        self._changed = asyncio.Event()
        self._is_stopping = False
        self._is_hurried = False
        self._code = 0

    def stop(self) -> None:
        """End everything: the first call drains, the second kills what may be killed."""
        if self._is_stopping and not self._is_hurried:
            self._is_hurried = True
            self._say("killing what still drains")
        elif not self._is_stopping:
            self._is_stopping = True
            self._say("draining; once more to end at once")
        self._changed.set()

    async def run(self, stages: Sequence[Sequence[Child]], on_ready: Callable[[], None]) -> int:
        """Run until `stop`, or until a child cannot start; return the exit code.

        0: everything ended by itself when asked; 1: something had to be killed; 2: a child refused
        to start.
        """
        started: list[list[Keeper]] = []
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                keepers = [self._keeper(child) for child in stage]
                started.append(keepers)
                for keeper in keepers:
                    group.create_task(keeper.run())
                if not await self._are_ready(keepers):
                    break
            else:
                on_ready()
                await self._until(lambda: self._is_stopping, None)
            for keepers in reversed(started):
                await self._end(keepers)
        return self._code

    def _keeper(self, child: Child) -> Keeper:
        return Keeper(child, self._environ, say=self._say, relay=self._relay, changed=self._changed)

    async def _are_ready(self, keepers: list[Keeper]) -> bool:
        """Wait until all are ready; False when there is no use in waiting on."""
        await self._until(
            lambda: (
                self._is_stopping
                or any(keeper.is_refused for keeper in keepers)
                or all(keeper.is_ready for keeper in keepers)
            ),
            None,
        )
        if any(keeper.is_refused for keeper in keepers):
            self._code = EXIT_CONFIGURATION
            return False
        return not self._is_stopping

    async def _end(self, keepers: list[Keeper]) -> None:
        for keeper in keepers:
            keeper.end(signal.SIGTERM)

        def is_over() -> bool:
            hurry = self._is_hurried and all(keeper.child.can_hurry for keeper in keepers)
            return hurry or all(keeper.is_ended for keeper in keepers)

        await self._until(is_over, max(keeper.child.end_s for keeper in keepers))
        for keeper in keepers:
            if not keeper.is_ended:
                self._say(f"{keeper.child.name} had to be killed")
                self._code = self._code or 1
                keeper.end(signal.SIGKILL)
        await self._until(lambda: all(keeper.is_ended for keeper in keepers), None)

    async def _until(self, is_so: Callable[[], bool], within_s: float | None) -> None:
        """Return when `is_so`, looked at after every change, or after `within_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
