"""How long connections may last, by the credentials that opened them."""

from __future__ import annotations

import math
import time

import pytest

from api.readers.expiry import SHARE_WAIT_S, seconds_left, wait_s_max
from shared.config.credentials import LEEWAY_S, Identity, Share


@pytest.mark.parametrize(("ends_in_s", "left_s"), [(100, 100), (-5, LEEWAY_S - 5), (-40, 0)])
def test_a_connection_ends_with_its_token_or_with_the_leeway_after_it(
    ends_in_s: float, left_s: float
) -> None:
    identity = Identity("alice", expires_at=time.time() + ends_in_s)

    assert seconds_left(identity) == pytest.approx(left_s, abs=5)
    assert wait_s_max(identity) == pytest.approx(left_s, abs=5)


def test_a_key_does_not_expire() -> None:
    assert seconds_left(Identity("alice")) is None
    assert wait_s_max(Identity("alice")) == wait_s_max(None) == math.inf


def test_a_poll_with_a_share_is_short() -> None:
    share = Share("share_x", "gen_x", "")
    identity = Identity("alice", expires_at=time.time() + 1_000, share=share)

    assert wait_s_max(identity) == SHARE_WAIT_S
