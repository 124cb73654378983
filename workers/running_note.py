"""Notes in the queue's indexes that a generation runs, in the background.

The note moves a generation from the index of waiting generations to that of running generations.
The note is written a moment after the begin: an answer that is over by then needs no note, because
the end removes the generation from both indexes. The answer itself does not depend on the note.
"""

from __future__ import annotations

import asyncio

from shared.errors import Unavailable
from shared.queue.lanes import LaneEntry
from workers.parts import WorkerParts

RUNNING_NOTE_DELAY_S = 0.02  # a shorter answer is never noted as running


class RunningNote:
    """The note for one begun generation. Creating the object starts the delay.

    Args:
        created_at_ms: when the generation was accepted, Redis's clock.
    """

    def __init__(self, parts: WorkerParts, ticket: LaneEntry, created_at_ms: int) -> None:
        self._queue = parts.queue
        self._ticket = ticket
        self._created_at_ms = created_at_ms
        self._is_started = False
        self._task = parts.spawn(self._write_after(RUNNING_NOTE_DELAY_S))

    async def settle(self, *, has_ended: bool) -> None:
        """Make sure that no later write can add the generation to the indexes.

        Call it before the generation leaves the indexes. Waits for a note that is being written;
        a note that was not started is written now, or dropped if the answer has ended.
        """
        if self._is_started:
            await self._task
            return
        self._task.cancel()
        if not has_ended:
            await self._write()

    async def _write_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        await self._write()

    async def _write(self) -> None:
        self._is_started = True
        try:
            await self._queue.note_begun(self._ticket, self._created_at_ms)
        except Unavailable:
            pass  # counts as waiting until it ends; each lease renewal also notes that it runs
