"""Channels of the live connection: a listener that fails stops nothing but itself."""

from __future__ import annotations

import logging

import pytest

from tests.support.hub_harness import HubHarness, settle


class FailingListener:
    """A listener whose methods raise."""

    def subscribed(self) -> None:
        raise RuntimeError("subscribed")

    def message(self, payload: bytes) -> None:
        raise RuntimeError("message")


class RecordingListener:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def subscribed(self) -> None:
        pass

    def message(self, payload: bytes) -> None:
        self.payloads.append(payload)


async def test_a_listener_that_raises_does_not_end_the_live_connection(
    hub_harness: HubHarness, caplog: pytest.LogCaptureFixture
) -> None:
    good = RecordingListener()
    channels = hub_harness.hub.channels
    channels.add(b"bad", FailingListener())
    channels.add(b"good", good)
    await settle()
    with caplog.at_level(logging.ERROR):
        for n in range(3):
            hub_harness.live.deliver(b"bad", b"%d" % n)
            hub_harness.live.deliver(b"good", b"%d" % n)
        hub_harness.live.reconnect()

    assert good.payloads == [b"0", b"1", b"2"]
    failures = [record for record in caplog.records if record.msg == "channel listener failed"]
    assert len(failures) == 1, "a stream of messages fills no log"
    assert failures[0].levelno == logging.ERROR and failures[0].exc_info


async def test_a_listener_that_is_added_again_may_report_its_failure_again(
    hub_harness: HubHarness, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        hub_harness.hub.channels.add(b"bad", FailingListener())
        await settle()
        hub_harness.live.deliver(b"bad", b"1")
        hub_harness.hub.channels.remove(b"bad")
    assert [record.msg for record in caplog.records].count("channel listener failed") == 2
