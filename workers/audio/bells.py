"""Wakes the runs of one worker whose audio input has grown.

`shared/redis/scripts/audio_append.lua` publishes the id of the generation on a channel of the
worker. A message may be lost while the worker connects again; so a reader also looks by itself,
once in `workers.audio.input.LOOK_S`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class AudioBells:
    """The events of all readings of audio inputs in this worker."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def listen(self, generation_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever the input of this generation has grown."""
        bell = asyncio.Event()
        self._bells[generation_id].add(bell)
        try:
            yield bell
        finally:
            self._bells[generation_id].discard(bell)
            if not self._bells[generation_id]:
                del self._bells[generation_id]

    def ring(self, generation_id: str) -> None:
        for bell in self._bells.get(generation_id, ()):
            bell.set()
