"""Which failures are an outage of the model server, and how long a generation waits for it."""

from __future__ import annotations

import pytest

from shared.config.settings import UPSTREAM_BREAKS_MAX
from shared.errors import BackendError
from shared.queue.lanes import LaneEntry, decode_entry, encode_entry
from workers.failures.outage import OUTAGE_PAUSE_MAX_S, OUTAGE_PAUSE_MIN_S, postpone

TICKET = LaneEntry(1, "gen_0123456789", "interactive", "m")
AWAY = BackendError("upstream_error", "cannot be reached", is_outage=True)
NOW_MS = 1_000_000


def waits(ticket=TICKET, error=AWAY, *, has_answered=False, now_ms=NOW_MS, limit_s=60.0):
    return postpone(ticket, error, has_answered=has_answered, now_ms=now_ms, limit_s=limit_s)


def test_another_failure_is_no_outage():
    assert waits(error=BackendError("upstream_error", "500")) is None


def test_a_server_that_says_never_is_not_waited_for():
    """A 503 that names an exhausted quota."""
    final = BackendError("upstream_refused", "503: quota", retryable=False, is_outage=True)

    assert waits(error=final) is None


def test_the_pauses_grow_and_end_at_the_limit():
    ticket, now_ms, pauses = TICKET, NOW_MS, []
    while len(pauses) < 100 and (found := waits(ticket, now_ms=now_ms)) is not None:
        ticket, pauses = found.ticket, [*pauses, found.pause_s]
        now_ms += round(1000 * found.pause_s)

    assert pauses[0] == OUTAGE_PAUSE_MIN_S
    assert max(pauses) == OUTAGE_PAUSE_MAX_S
    assert now_ms - NOW_MS == pytest.approx(60_000, abs=len(pauses))
    assert len(pauses) < 20
    assert ticket.away_since_ms == NOW_MS


def test_a_restart_of_a_few_seconds_is_over_soon_after_the_server_is_back():
    ticket, now_ms = TICKET, NOW_MS
    while now_ms < NOW_MS + 3_500:
        found = waits(ticket, now_ms=now_ms)
        ticket, now_ms = found.ticket, now_ms + round(1000 * found.pause_s)

    assert now_ms <= NOW_MS + 2 * 3_500


@pytest.mark.parametrize(("asked_s", "pause_s"), [(2.0, 2.0), (3_600.0, 60.0), (0.0, 0.25)])
def test_a_server_may_ask_for_a_longer_pause_within_the_limit(asked_s, pause_s):
    error = BackendError("upstream_error", "loading", is_outage=True, retry_after_s=asked_s)

    assert waits(error=error).pause_s == pause_s


def test_an_answer_of_the_server_ends_the_outage():
    long_ago = LaneEntry(1, "g", "interactive", "m", away_since_ms=NOW_MS - 3_600_000)

    assert waits(long_ago) is None
    assert waits(long_ago, has_answered=True).ticket.away_since_ms == NOW_MS


def test_only_some_answers_may_break_off():
    ticket = TICKET
    for n in range(1, UPSTREAM_BREAKS_MAX + 1):
        ticket = waits(ticket, has_answered=True).ticket
        assert ticket.breaks == n

    assert waits(ticket, has_answered=True) is None
    assert waits(ticket) is not None, "waiting for a server is not an answer that breaks off"


def test_an_entry_without_an_outage_has_the_bytes_of_older_versions():
    assert encode_entry("g", "batch", "m") == b'{"v":1,"id":"g","priority":"batch","model":"m"}'
    assert decode_entry(encode_entry("g", "batch", "m")).away_since_ms == 0
