"""A probe arrives in time, or the connection counts as deaf."""

from __future__ import annotations

from api.hub.probe import Probe


def test_a_probe_arrives_in_time_or_expires_once() -> None:
    probe = Probe(interval_s=5, answer_s=2)
    payload = probe.next_payload(0)
    assert payload is not None
    assert probe.next_payload(1) is None
    probe.receive(b"another payload", 1)
    assert not probe.is_heard
    probe.receive(payload, 1)
    assert probe.is_heard
    assert probe.next_payload(5.9) is None
    assert probe.next_payload(6) is not None
    assert not probe.expire(7.9)
    assert probe.expire(8)
    assert not probe.is_heard
    assert not probe.expire(9)
