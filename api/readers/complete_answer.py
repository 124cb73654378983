"""An answer that is not streamed: the log is waited for, and then handed over entry by entry.

The client is a reader like any other while it waits: it counts for the grace, and when it hangs up
it has left. There is no deadline; what ends the waiting is the log's end, a loss, a drain.
Knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive

from api.errors import Shape, request_error, unavailable
from api.hub.contracts import Outcome
from api.hub.encoded import ENCODE_ENTRIES_MAX
from api.hub.hub import Hub
from api.hub.relay import Relay
from api.readers.disconnect import Departure
from api.readers.log_waiter import Waiter
from api.response import error_response
from shared.errors import Draining, Expired, RequestError, Unavailable
from shared.log.ids import START, EventId
from shared.log.records import Meta
from shared.text.large import FOLD_BYTES_MAX

Add = Callable[[EventId, bytes], None]


async def read_whole(hub: Hub, meta: Meta, receive: Receive, add: Add) -> None:
    """Wait for the end of a generation, and give `add` its log, `end` last.

    The end of a generation that Redis has lost is in no log: it has the id `0-0`.

    Args:
        receive: tells when the client has left.

    Raises:
        RequestError, Unavailable: as `Hub.reading`; also `draining`, `expired`, and
            `request_timeout` when the client has left.
    """
    async with hub.reading(meta) as relay:
        with Waiter(relay, hub.now()) as waiter:
            departure = Departure(receive, lambda: waiter.break_off(Outcome.LEFT))
            hub.admit(waiter, "whole")
            try:
                await waiter.until(lambda: relay.is_over)
                _check(waiter)
                while relay.feed.base:
                    relay.refill_soon()
                    await waiter.changed()
                    _check(waiter)
            finally:
                departure.close()
                hub.dismiss(waiter)
            await _hand_over(relay, add)


async def whole_or_refusal(
    hub: Hub, meta: Meta, receive: Receive, add: Add, shape: Shape
) -> Response | None:
    """As `read_whole`; return the answer that says why not, if it did not come to the end.

    It names the generation, which goes on and can be read natively elsewhere.
    """
    try:
        await read_whole(hub, meta, receive, add)
    except Unavailable:
        error = unavailable()
    except RequestError as exc:
        error = exc
    else:
        return None
    return error_response(error, shape, {"x-generation-id": meta.generation_id})


async def _hand_over(relay: Relay, add: Add) -> None:
    """In steps, so that a long log does not hold the loop."""
    feed = relay.feed
    raws, ids = list(feed.raws), feed.ids
    folded = 0
    for index, raw in enumerate(raws):
        if index % ENCODE_ENTRIES_MAX == ENCODE_ENTRIES_MAX - 1 or folded > FOLD_BYTES_MAX:
            folded = 0
            await asyncio.sleep(0)
        add(ids.at(index + 1), raw)
        folded += len(raw)
    if relay.last_words is not None:
        add(START, relay.last_words)


def _check(waiter: Waiter) -> None:
    match waiter.outcome:
        case None:
            return
        case Outcome.LEFT:
            raise request_error("request_timeout", "the client left before its answer was whole")
        case Outcome.DRAINED:
            raise Draining()
        case _:
            raise Expired()
