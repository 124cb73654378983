"""The body of a new batch, and the JSON object of a batch."""

from __future__ import annotations

from typing import Any

import pytest

from api.intake.batch_members import batch_object, digest_of, read_new_batch
from shared.batches.record import NewBatch, parse_batch
from shared.config.settings import Settings
from shared.errors import RequestError

GOOD = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}
WEEK_S = 7 * 86_400


def read(**members: Any) -> NewBatch:
    body = {name: value for name, value in (GOOD | members).items() if value is not None}
    return read_new_batch(body, owner="me", batch_id="batch_1", settings=Settings())


def test_absent_members_have_defaults() -> None:
    new = read()

    assert (new.window, new.window_s, new.metadata) == ("24h", 86_400.0, b"{}")
    assert (new.owner, new.batch_id, new.output_expires_s) == ("me", "batch_1", None)


@pytest.mark.parametrize(
    ("window", "window_s"),
    [
        ("24h", 86_400), ("1s", 1), ("90m", 5_400), ("7d", WEEK_S), ("168h", WEEK_S),
        ("10080m", WEEK_S), ("604800s", WEEK_S), ("604799s", WEEK_S - 1), ("99999s", 99_999),
    ],
)  # fmt: skip
def test_a_window_may_have_any_unit(window: str, window_s: int) -> None:
    assert read(completion_window=window).window_s == window_s


@pytest.mark.parametrize(
    "window",
    [
        "", "0s", "8d", "169h", "10081m", "604801s", "700000s", "1w", "24", "h", "-1h", "1.5h",
        " 1h", "1h ", "01h", "1H", "٣h", 24, [], True,
    ],
)  # fmt: skip
def test_a_malformed_window_is_422(window: Any) -> None:
    with pytest.raises(RequestError) as caught:
        read(completion_window=window)

    assert caught.value.code == "invalid_request"


def test_every_window_is_at_most_a_week() -> None:
    seconds = [read(completion_window=f"{n}s").window_s for n in range(1, WEEK_S + 1, 997)]

    assert seconds == [float(n) for n in range(1, WEEK_S + 1, 997)]


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"input_file_id": None}, 422),
        ({"input_file_id": 7}, 422),
        ({"input_file_id": ""}, 422),
        ({"input_file_id": "x" * 200}, 422),
        ({"endpoint": None}, 422),
        ({"endpoint": "/v1/embeddings"}, 404),
        ({"metadata": []}, 422),
        ({"metadata": {"a": 1}}, 422),
        ({"metadata": {"a": "x" * 20_000}}, 422),
        ({"output_expires_after": {"seconds": 7_200}}, 422),
        ({"output_expires_after": {"anchor": "created_at", "seconds": True}}, 422),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3_599}}, 422),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 2_592_001}}, 422),
        ({"output_expires_after": "soon"}, 422),
    ],
)
def test_a_wrong_member_is_refused(members: dict[str, Any], status: int) -> None:
    with pytest.raises(RequestError) as caught:
        read(**members)

    assert caught.value.status == status


def test_the_digest_is_of_the_meaning() -> None:
    assert digest_of(read()) == digest_of(read(completion_window="1d", further="member"))
    assert digest_of(read()) != digest_of(read(metadata={"a": "b"}))
    assert digest_of(read()) != digest_of(read(input_file_id="file-2"))


def test_the_object_of_a_batch_has_its_files_counts_and_times() -> None:
    fields = {
        b"status": b"completed", b"created": b"5000", b"expires": b"86405000", b"metadata": b"{}",
        b"completed_at": b"9999", b"total": b"3", b"completed": b"2", b"failed": b"1",
        b"output_file_id": b"file-2", b"total_tokens": b"7",
    }  # fmt: skip
    shown = batch_object(parse_batch("batch_1", fields))

    assert (shown["created_at"], shown["completed_at"], shown["failed_at"]) == (5, 9, None)
    assert shown["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert (shown["output_file_id"], shown["error_file_id"]) == ("file-2", None)
    assert (shown["usage"]["total_tokens"], shown["errors"], shown["model"]) == (7, None, None)
