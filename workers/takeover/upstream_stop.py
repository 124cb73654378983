"""Stops the answer that a model server makes in the background.

Servers without a background mode notice the end of the connection, and stop by themselves. If a
generation was cancelled while no worker ran it, the worker that reads its queue entry sends the
stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.errors import Unavailable
from shared.log.events import End, decode_known
from shared.log.log_reader import read_log
from shared.log.records import Entry
from shared.log.store import Store
from workers.backends.background import BackgroundBackend
from workers.backends.contract import Backend
from workers.takeover.continuation import upstream_of, writer_of


async def stop_upstream(backend: Backend, log: Sequence[Entry]) -> None:
    """Stop the server's work on the answer in `log`, if it makes the answer in the background."""
    if isinstance(backend, BackgroundBackend) and (upstream_id := upstream_of(log)):
        await backend.cancel(upstream_id)


async def stop_upstream_of_ended(
    backends: Mapping[str, Backend], store: Store, generation_id: str
) -> None:
    """Stop the server's work on an answer whose generation has ended, unless it is complete.

    Args:
        backends: that may have written the answer, by the names of their tables.
    """
    if not any(isinstance(backend, BackgroundBackend) for backend in backends.values()):
        return
    log: list[Entry] = []
    try:
        await read_log(store, generation_id, lambda *entry: log.append(entry))
    except Unavailable:
        return  # the server ends the answer by itself, later
    end = decode_known(log[-1][1]) if log else None
    if isinstance(end, End) and end.status != "completed":
        await stop_upstream(backends.get(writer_of(log)) or next(iter(backends.values())), log)
