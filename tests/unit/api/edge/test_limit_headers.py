"""The headers of an owner's limits, as OpenAI and as the IETF's draft write them."""

from __future__ import annotations

import pytest

from api.edge.limit_headers import add_limit_headers, duration, limit_headers
from api.transport.extensions import ALLOWANCE
from shared.config.limits import OwnerLimits
from shared.queue.allowance import Allowance


def headers_of(limits: OwnerLimits) -> dict[str, str]:
    found = limit_headers(Allowance(limits, 3, 0.5, 800, 12.0, 5_000, 3_600.4))
    return {name.decode(): value.decode() for name, value in found}


def test_each_limit_has_its_policy_and_what_is_left() -> None:
    limits = OwnerLimits(prompts_per_min=4, tokens_per_min=1_000, tokens_per_day=9_000)

    assert headers_of(limits) == {
        "ratelimit-policy": '"prompts";q=4;w=60, "tokens";q=1000;w=60;qu="tokens", '
        '"day";q=9000;w=86400;qu="tokens"',
        "ratelimit": '"prompts";r=3;t=1, "tokens";r=800;t=12, "day";r=5000;t=3601',
        "x-ratelimit-limit-requests": "4",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "500ms",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "800",
        "x-ratelimit-reset-tokens": "12s",
    }


def test_a_limit_of_the_day_alone_stands_in_the_headers_of_openai() -> None:
    found = headers_of(OwnerLimits(tokens_per_day=9_000))

    assert found["x-ratelimit-remaining-tokens"] == "5000"
    assert "x-ratelimit-limit-requests" not in found


def test_an_owner_with_only_a_bound_of_generations_gets_no_headers() -> None:
    assert headers_of(OwnerLimits(active_max=3)) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.12, "120ms"), (1, "1s"), (7.5, "7.5s"), (60, "1m0s"), (360, "6m0s"),
     (3_661, "1h1m1s"), (7_200.2, "2h0m1s")],
)  # fmt: skip
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_only_the_head_of_an_http_answer_gets_the_headers() -> None:
    allowance = Allowance(OwnerLimits(prompts_per_min=4), 3, 0.5, 0, 0, 0, 0)
    head = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    closing = {"type": "websocket.close"}

    add_limit_headers({ALLOWANCE: allowance}, head)
    add_limit_headers({ALLOWANCE: allowance}, closing)

    assert head["headers"][0] == (b"a", b"b") and len(head["headers"]) == 6
    assert closing == {"type": "websocket.close"}
