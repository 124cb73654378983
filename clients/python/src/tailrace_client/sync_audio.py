"""Sends the audio of a generation, without an event loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from tailrace_client.audio import TYPE, ChunkLog
from tailrace_client.errors import TailraceError
from tailrace_client.options import Shared
from tailrace_client.pace import BackOff
from tailrace_client.wire import generation_path

Post = Callable[..., Any]


def send_audio(shared: Shared, post: Post, id: str, audio: Iterable[bytes]) -> None:
    """Send all bytes of `audio`, and the end of the input; see `Tailrace.send_audio`."""
    log = ChunkLog()
    for data in audio:
        log.write(data)
        _send(shared, post, id, log)
    log.finish()
    _send(shared, post, id, log)


def _send(shared: Shared, post: Post, id: str, log: ChunkLog) -> None:
    back_off, headers = BackOff(shared.random), {"content-type": TYPE}
    while (chunk := log.next) is not None:
        path = f"{generation_path(id)}/audio{chunk.query}"
        try:
            log.confirm(chunk, post("POST", path, content=chunk.data, headers=headers))
            back_off = BackOff(shared.random)
        except TailraceError as exc:
            if exc.retryable:
                time.sleep(shared.pause_s(back_off, exc, full_s=math.inf))
            else:
                log.go_back(exc)
