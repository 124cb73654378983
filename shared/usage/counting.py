"""Counts the tokens of a generation from its log, where no worker has reported them."""

from __future__ import annotations

import msgspec

from shared.log.events import Counts, decode_known
from shared.log.log_reader import read_log
from shared.log.request import decode_request
from shared.log.store import Store
from shared.log.tally import Tally, count_prompt


async def count_log(store: Store, generation_id: str) -> Counts | None:
    """Return the counts of a generation so far; None: it has no token.

    Raises:
        Unavailable: Redis did not answer in time.
    """
    tally = Tally()
    await read_log(store, generation_id, lambda _, raw: tally.add(decode_known(raw)))
    if not tally.completion_tokens:
        return None
    prompt_tokens = 0
    if tally.usage is None:
        meta = await store.meta(generation_id)
        if meta is not None and (meta := await store.with_request(meta)) is not None:
            try:
                prompt_tokens = count_prompt(decode_request(meta.request))
            except msgspec.MsgspecError:  # of a newer version
                prompt_tokens = 0
    return tally.counts(prompt_tokens)
