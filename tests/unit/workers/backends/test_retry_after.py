"""The pause before the next attempt: a person waits 30 s in all, a batch as long as it is asked."""

from __future__ import annotations

import pytest

from workers.backends.retry_after import PERSON_WAIT_S_MAX, retry_pause_s

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("asked_s", "failures", "is_batch", "pause_s"),
    [
        (None, 1, False, 0.5),
        (None, 2, False, 1.0),
        (0.0, 1, False, 0.5),
        (3.0, 1, False, 3.0),
        (20.0, 1, False, 20.0),
        (DAY_S, 1, False, 20.0),
        (DAY_S, 0, False, 20.0),
        (DAY_S, 2, False, pytest.approx(20 / 3)),
        (20.0, 1, True, 20.0),
        (DAY_S, 1, True, 600.0),
    ],
)
def test_the_pause(asked_s: float | None, failures: int, is_batch: bool, pause_s: float) -> None:
    own_s = 0.5 * 2 ** (failures - 1)

    found = retry_pause_s(own_s, asked_s, failures=failures, is_batch=is_batch, wait_s_max=600.0)

    assert found == pause_s


@pytest.mark.parametrize("own_s", [0.5, 30.0])
def test_all_pauses_of_a_person_stay_below_the_bound(own_s: float) -> None:
    pauses = [
        retry_pause_s(own_s, DAY_S, failures=number, is_batch=False, wait_s_max=600.0)
        for number in range(1, 1_000)
    ]

    assert sum(pauses) == pytest.approx(PERSON_WAIT_S_MAX)


def test_no_pause_is_longer_than_a_prompt_may_wait() -> None:
    assert retry_pause_s(9.0, DAY_S, failures=1, is_batch=False, wait_s_max=2.0) == 2.0
