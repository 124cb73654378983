"""Checks the body of POST /v1/batches, and builds the JSON object of a batch.

Pure, except for `find_input`. Source: docs/batches.md; OpenAI's Batch API.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from api.intake.body import METADATA_BYTES_MAX, invalid_request
from api.intake.webhook_members import read_webhook
from shared.batches.record import ENDPOINTS, TIMES, Batch, NewBatch
from shared.config.settings import Settings
from shared.errors import NotFound
from shared.files.store import FileRecord, FileStore
from shared.later.webhooks import encode_webhook

# At most seven days, in each unit. The OpenAPI document shows this regular expression.
WINDOW = re.compile(
    r"([1-7]d"
    r"|([1-9][0-9]?|1[0-5][0-9]|16[0-8])h"
    r"|([1-9][0-9]{0,3}|100[0-7][0-9]|10080)m"
    r"|([1-9][0-9]{0,4}|[1-5][0-9]{5}|60[0-3][0-9]{3}|604[0-7][0-9]{2}|604800)s)",
    re.ASCII,
)
WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
FILE_ID_CHARACTERS_MAX = 128
FILE_EXPIRES_S_MIN, FILE_EXPIRES_S_MAX = 3_600, 30 * 86_400  # OpenAI's bounds, also of uploads

_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


def read_new_batch(
    body: Mapping[str, Any], *, owner: str, batch_id: str, settings: Settings
) -> NewBatch:
    """Return the batch that a body asks for. Does not check that the input file exists.

    Args:
        body: as `read_object` returns it; unknown members are ignored.

    Raises:
        RequestError: 422 for a wrong member.
        NotFound: batches do not support this endpoint.
    """
    window, window_s = _window(body.get("completion_window", "24h"))
    webhook = read_webhook(body, settings)
    return NewBatch(
        batch_id=batch_id,
        owner=owner,
        endpoint=_endpoint(body),
        input_file_id=_file_id(body),
        window=window,
        window_s=window_s,
        metadata=_metadata(body.get("metadata", {})),
        output_expires_s=_expires_s(body.get("output_expires_after")),
        webhook=b"" if webhook is None else encode_webhook(webhook),
    )


def digest_of(new: NewBatch) -> str:
    """Hash the meaning of a request; a repeat with the same Idempotency-Key must have this hash."""
    parts = [
        new.endpoint, new.input_file_id, new.window_s, new.metadata.decode(),
        new.output_expires_s, new.webhook.decode(),
    ]  # fmt: skip
    return hashlib.sha256(_encode_canonical(parts)).hexdigest()


def batch_object(batch: Batch) -> dict[str, Any]:
    """Return a batch in the shape of OpenAI's SDK, with one more member, `events_url`."""
    errors = {"object": "list", "data": msgspec.Raw(batch.errors)} if batch.errors else None
    times = {f"{name}_at": _seconds(batch.times.get(name)) for name in TIMES}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.window,
        "status": batch.status,
        "output_file_id": batch.output_file_id or None,
        "error_file_id": batch.error_file_id or None,
        "created_at": batch.created_at_ms // 1000,
        "expires_at": batch.expires_at_ms // 1000,
        **times,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": {
            "input_tokens": batch.usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": batch.usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.usage.total_tokens,
        },
        "model": batch.model or None,
        "metadata": msgspec.Raw(batch.metadata),
        "events_url": f"/v1/batches/{batch.id}/events",
    }


def _seconds(at_ms: int | None) -> int | None:
    return None if at_ms is None else at_ms // 1000


def _endpoint(body: Mapping[str, Any]) -> str:
    endpoint = body.get("endpoint")
    if not isinstance(endpoint, str):
        raise invalid_request("endpoint must be a string")
    if endpoint not in ENDPOINTS:
        raise NotFound(f"endpoint for batches: use one of {', '.join(ENDPOINTS)}")
    return endpoint


def _file_id(body: Mapping[str, Any]) -> str:
    file_id = body.get("input_file_id")
    if not isinstance(file_id, str) or not 0 < len(file_id) <= FILE_ID_CHARACTERS_MAX:
        raise invalid_request("input_file_id must be the id of a file")
    return file_id


def _window(value: Any) -> tuple[str, float]:
    if not isinstance(value, str) or WINDOW.fullmatch(value) is None:
        raise invalid_request("completion_window must be 24h, or a number of s, m, h or d up to 7d")
    return value, float(int(value[:-1]) * WINDOW_UNITS_S[value[-1]])


def _metadata(metadata: Any) -> bytes:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise invalid_request("metadata must be an object of strings")
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > METADATA_BYTES_MAX:
        raise invalid_request(f"metadata must be at most {METADATA_BYTES_MAX} bytes of JSON")
    return encoded


def _expires_s(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.get("anchor") != "created_at":
        raise invalid_request("output_expires_after.anchor must be created_at")
    seconds = value.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise invalid_request("output_expires_after.seconds must be a whole number")
    if not FILE_EXPIRES_S_MIN <= seconds <= FILE_EXPIRES_S_MAX:
        raise invalid_request(
            f"output_expires_after.seconds: {FILE_EXPIRES_S_MIN} to {FILE_EXPIRES_S_MAX}"
        )
    return float(seconds)


async def find_input(files: FileStore, file_id: str, owner: str) -> FileRecord:
    """Return the record of a batch's input file.

    Raises:
        NotFound: there is no such file, or it belongs to another owner.
        RequestError: 422, the file's purpose is not `batch`.
    """
    record = await files.get(file_id, owner)
    if record is None:
        raise NotFound(f"file: {file_id[:64]!r}")
    if record.purpose != "batch":
        raise invalid_request(f"input_file_id: upload it with purpose batch, not {record.purpose}")
    return record
