"""Held batches: for how long, and which changes end the hold."""

from __future__ import annotations

import pytest

from jobs.batch.hold import HeldBatches, needs_no_slice
from jobs.owners import HOLD_S
from shared.batches.record import BatchProgress


def test_a_held_batch_gets_no_slice_for_a_while() -> None:
    held = HeldBatches()
    held.add("a", 100.0)

    assert held.of(["a", "b"], 101.0) == ["a"]
    assert held.of(["a", "b"], 100.0 + HOLD_S) == []


def test_a_batch_that_is_not_unfinished_is_forgotten() -> None:
    held = HeldBatches()
    held.add("a", 100.0)
    held.add("b", 100.0)

    assert held.of(["b"], 101.0) == ["b"]
    assert len(held) == 1


@pytest.mark.parametrize(
    ("standing", "is_idle"),
    [
        (BatchProgress("in_progress", 1001), True),
        (BatchProgress("in_progress", 1000), False),
        (BatchProgress("cancelling", 1001), False),
        (BatchProgress("finalizing", 1001), False),
        (None, False),
    ],
)
def test_a_held_batch_that_ends_or_expires_needs_a_slice(
    standing: BatchProgress | None, is_idle: bool
) -> None:
    assert needs_no_slice(standing, 1000) is is_idle
