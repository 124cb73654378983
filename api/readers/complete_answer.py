"""An answer that is not streamed: waits for the log's end, then hands over all entries in order.

A waiting client is a reader like any other: it keeps the generation alive under `on_disconnect`,
and a disconnect counts as leaving. There is no deadline: the wait ends with the log's end, a loss,
a drain or a disconnect. Knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive

from api.errors import ErrorShape, unavailable
from api.hub.contracts import ReadingOutcome
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.readers.disconnect import DisconnectWatcher
from api.readers.log_waiter import Waiter
from api.response import error_response
from shared.errors import RequestError, Unavailable
from shared.log.fold import FOLD_ENTRIES_MAX
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.text.large import FOLD_BYTES_MAX

AddEntry = Callable[[EventId, bytes], None]


async def read_complete_log(hub: Hub, meta: Meta, receive: Receive, add: AddEntry) -> None:
    """Wait for the end of a generation, then call `add` for each entry of its log, `end` last.

    If Redis has lost the generation, its `end` is in no log and has the id `0-0`. If this node has
    trimmed the beginning of such a log, `end` is the only entry: the rest would have a hole.

    Args:
        receive: the ASGI `receive` of the request; it reports a disconnect.

    Raises:
        RequestError: `draining`: this node stops. `expired`: the log expired meanwhile.
            `request_timeout`: the client disconnected. Also what `Hub.reading` raises.
        Unavailable: as `Hub.reading`.
    """
    async with hub.reading(meta) as relay:
        with Waiter(relay, hub.now()) as waiter:
            departure = DisconnectWatcher(receive, lambda: waiter.break_off(ReadingOutcome.LEFT))
            hub.admit(waiter, "whole")
            try:
                await waiter.until(lambda: relay.is_over)
                waiter.check_not_broken_off()
                while relay.feed.base and relay.unlogged_end is None:
                    # The beginning was trimmed: read it again.
                    relay.refill_soon()
                    await waiter.changed()
                    waiter.check_not_broken_off()
            finally:
                departure.close()
                hub.dismiss(waiter)
            await _hand_over(relay, add)


async def complete_log_or_error(
    hub: Hub, meta: Meta, receive: Receive, add: AddEntry, shape: ErrorShape
) -> Response | None:
    """Do as `read_complete_log`, but return an error response instead of raising.

    The error response names the generation in `x-generation-id`: the generation goes on, and the
    client can read it at another node.

    Returns:
        None: `add` was called for the complete log.
    """
    try:
        await read_complete_log(hub, meta, receive, add)
    except Unavailable:
        error = unavailable()
    except RequestError as exc:
        error = exc
    else:
        return None
    return error_response(error, shape, {"x-generation-id": meta.generation_id})


async def _hand_over(relay: Relay, add: AddEntry) -> None:
    """Call `add` for all entries, in steps, so that a long log does not block the event loop."""
    feed = relay.feed
    raws, ids = [] if feed.base else list(feed.raws), feed.ids
    step_bytes = 0
    for index, raw in enumerate(raws):
        if index % FOLD_ENTRIES_MAX == FOLD_ENTRIES_MAX - 1 or step_bytes > FOLD_BYTES_MAX:
            step_bytes = 0
            await asyncio.sleep(0)
        add(ids.at(index + 1), raw)
        step_bytes += len(raw)
    if relay.unlogged_end is not None:
        add(START, relay.unlogged_end)
