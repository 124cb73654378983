"""Ends a batch: joins the parts to files, then sets the last status and ends its log.

The ids of the files are derived from the id of the batch, so a repeat finds existing files. The
parts are deleted when both files are complete, and the status is set last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from jobs.batch.check import Complaint
from jobs.batch.parts import BatchParts
from jobs.batch.read_ahead import read_in_order
from shared.batches.lease import BatchLease
from shared.batches.record import BATCH_KEPT_S, OUTPUT_BYTES_MAX, Batch, parts_prefix
from shared.errors import LeaseLost
from shared.log.events import End
from shared.log.ids import derived_id
from shared.log.records import failed

log = logging.getLogger(__name__)

RESULTS_LOST = Complaint("results_lost", None, "the file store has lost results")
ENDS = {
    "expired": failed("batch_expired", "its completion window is over", retryable=True),
    "failed": failed("invalid_request", "files are gone: see errors", retryable=False),
    "cancelled": End("cancelled", "cancelled"),
}


async def finish(
    parts: BatchParts,
    lease: BatchLease,
    batch: Batch,
    after: str,
    *,
    errors: str = "",
) -> bool:
    """Move a batch to its last status `after`; False: its status has changed meanwhile.

    Args:
        errors: a JSON array for the record; empty: none.

    Raises:
        LeaseLost, Unavailable: the next slice repeats this.
    """
    part_names = await lease.parts()
    fields = {"errors": errors} if errors else {}
    for name, suffix in (("output", ".out"), ("error", ".err")):
        chosen = [part for part in part_names if part.endswith(suffix)]
        try:
            if chosen:
                fields[f"{name}_file_id"] = await _join(parts, batch, name, chosen)
        except FileNotFoundError:
            if not await lease.renew():  # another process has done all this and deleted the parts
                raise LeaseLost("the batch has ended") from None
            fields["errors"] = msgspec.json.encode([RESULTS_LOST]).decode()
            after = "failed"
    await parts.files.delete_prefix(parts_prefix(batch.id))
    end = ENDS.get(after) or End("completed", "stop", usage=batch.usage)
    is_over = await lease.move(
        batch.status, after, fields=fields, events=[end], kept_s=BATCH_KEPT_S
    )
    if is_over:
        await parts.batches.retire([batch.id])
        counts = {"lines": batch.total, "completed": batch.completed, "failed": batch.failed}
        log.info("batch ended", extra={"batch_id": batch.id, "status": after, **counts})
    return is_over


async def _join(parts: BatchParts, batch: Batch, name: str, part_names: Sequence[str]) -> str:
    try:
        async with asyncio.TaskGroup() as reads:
            record = await parts.files.create(
                batch.owner,
                f"{batch.id}_{name}.jsonl",
                "batch_output",
                read_in_order(parts.files, part_names, reads),
                bytes_max=OUTPUT_BYTES_MAX,
                expires_s=batch.output_expires_s,
                file_id=derived_id("file-", batch.id, name),
            )
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return record.id
