"""Runs child processes in stages: starts the stages in order and ends them in reverse order.

Invariant: when `Supervisor.run` returns, no process of any child's group is left. Must not know
what the children do.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence

from cli.up.keeper import EXIT_CONFIGURATION, Child, Keeper


class Supervisor:
    """Runs stages of children. A stage starts when all children of the stage before are ready.

    Args:
        environ: the environment of every child.
        say: shows a message of the supervisor.
        relay: shows an output line of a child; called with the child's name and the line.
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
        self._group: asyncio.TaskGroup | None = None
        self._started: list[list[Keeper]] = []

    @property
    def keepers(self) -> list[Keeper]:
        """Those of all children, in the order of their start."""
        return [keeper for stage in self._started for keeper in stage]

    def add(self, child: Child) -> None:
        """Start one more child beside those of the last stage; it ends with them."""
        if self._group is None or self._is_stopping:
            return
        keeper = self._keeper(child)
        self._started[-1].append(keeper)
        self._group.create_task(keeper.run())

    def stop(self) -> None:
        """End all children: the first call drains, the second kills those that `can_hurry`."""
        if self._is_stopping and not self._is_hurried:
            self._is_hurried = True
            self._say("killing the processes that still drain")
        elif not self._is_stopping:
            self._is_stopping = True
            self._say("draining; a second signal ends it at once")
        self._changed.set()

    async def run(self, stages: Sequence[Sequence[Child]], on_ready: Callable[[], None]) -> int:
        """Run until `stop`, or until a child cannot start.

        Args:
            on_ready: called once, when all children are ready.

        Returns:
            the exit code. 0: all children ended in time; 1: a child was killed; 2: a child cannot
            start with these settings.
        """
        started = self._started
        async with asyncio.TaskGroup() as self._group:
            for stage in stages:
                keepers = [self._keeper(child) for child in stage]
                started.append(keepers)
                for keeper in keepers:
                    self._group.create_task(keeper.run())
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
        """Wait until all keepers are ready; False: one is refused, or `stop` was called."""
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

        await self._until(is_over, max(keeper.child.kill_after_s for keeper in keepers))
        for keeper in keepers:
            if not keeper.is_ended:
                self._say(f"{keeper.child.name} had to be killed")
                self._code = self._code or 1
                keeper.end(signal.SIGKILL)
        await self._until(lambda: all(keeper.is_ended for keeper in keepers), None)

    async def _until(self, condition: Callable[[], bool], within_s: float | None) -> None:
        """Wait until `condition` is true, at most `within_s` seconds. Checks after each change."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
