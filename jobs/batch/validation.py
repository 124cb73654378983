"""Validates the input of a batch, and starts or fails the batch."""

from __future__ import annotations

import logging
import time

import msgspec

from jobs.batch.check import Complaint, InputCheck
from jobs.batch.gathering import progress
from jobs.batch.input_reader import line_bytes_max, lines_of
from jobs.batch.parts import BatchParts
from shared.batches.lease import BatchLease, Commit
from shared.batches.record import BATCH_KEPT_S, Batch
from shared.errors import NotFound
from shared.log.events import encode
from shared.log.records import failed

log = logging.getLogger(__name__)

LOOK_S = 0.5  # between two checks for a cancel, each with a progress event
GONE = Complaint("input_file_gone", None, "the input file is gone", "input_file_id")


async def validate(parts: BatchParts, lease: BatchLease, batch: Batch) -> None:
    """Move a batch from `validating` to `in_progress` or `failed`, unless it is cancelled.

    Raises:
        LeaseLost, Unavailable: the next slice repeats this.
    """
    bytes_max = line_bytes_max(parts.settings)
    check = InputCheck(batch.endpoint, bytes_max=bytes_max)
    record = await parts.files.get(batch.input_file_id, batch.owner)
    if record is None:
        await refuse(parts, lease, "validating", [GONE])
        return
    checked_s = time.monotonic()
    try:
        async for lines in lines_of(parts.files, record, bytes_max=bytes_max):
            for line in lines:
                check.add(line)
                if check.is_over:
                    break
            if check.is_over:
                break
            if time.monotonic() - checked_s > LOOK_S:
                checked_s = time.monotonic()
                if (await lease.load()).status != "validating":
                    return
                at = lines[-1].after if lines else 0
                event = encode(progress(at, record.bytes, "validating")).decode()
                await lease.commit(Commit(name=f"{lease.token}-v{at}", events=[event]))
    except NotFound:
        await refuse(parts, lease, "validating", [GONE])
        return
    check.close()
    if check.complaints:
        await refuse(parts, lease, "validating", check.complaints)
        return
    events = [progress(0, check.total)]
    await lease.move("validating", "in_progress", fields={"total": str(check.total)}, events=events)


async def refuse(
    parts: BatchParts, lease: BatchLease, before: str, complaints: list[Complaint]
) -> None:
    """End a batch whose input cannot run."""
    first = complaints[0]
    where = f"line {first.line}: " if first.line else ""
    end = failed("invalid_request", f"{where}{first.message}", retryable=False)
    fields = {"errors": msgspec.json.encode(complaints).decode()}
    if await lease.move(before, "failed", fields=fields, events=[end], kept_s=BATCH_KEPT_S):
        await parts.batches.retire([lease.batch_id])
        data = {"status": "failed", "code": first.code, "line": first.line}
        log.info("batch ended", extra={"batch_id": lease.batch_id, **data})
