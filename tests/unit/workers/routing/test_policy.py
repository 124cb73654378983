"""The order in which the backends of a route are asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.model_route import POLICIES, RouteRules
from shared.log.request import Request
from workers.routing.policy import Load, conversation_key, preference

NAMES = ("a", "b", "c")


def order(policy: str, loads: dict[str, Load] | None = None, **given: object) -> list[str]:
    weights = given.get("weights", (1, 1, 1) if policy == "weighted" else ())
    rules = RouteRules(backends=NAMES, policy=policy, weights=weights)  # type: ignore[arg-type]
    return preference(
        rules,
        lambda name: (loads or {}).get(name, Load()),
        key=given.get("key", b""),  # type: ignore[arg-type]
        draw=given.get("draw", lambda: 0.0),  # type: ignore[arg-type]
    )


def test_order_is_that_of_the_file() -> None:
    assert order("order", {"a": Load(busy=99)}) == ["a", "b", "c"]


def test_the_least_busy_backend_comes_first() -> None:
    loads = {"a": Load(busy=3), "b": Load(busy=1), "c": Load(busy=2)}

    assert order("least_busy", loads) == ["b", "c", "a"]


def test_equal_backends_come_in_random_order() -> None:
    draw = random.Random(1).random
    first = Counter(order("least_busy", draw=draw)[0] for _ in range(300))

    assert all(first[name] > 60 for name in NAMES)


def test_weights_share_the_prompts() -> None:
    draw = random.Random(1).random
    first = Counter(order("weighted", weights=(3, 1, 1), draw=draw)[0] for _ in range(5_000))

    assert first["a"] / 5_000 == pytest.approx(0.6, abs=0.03)
    assert first["b"] / 5_000 == pytest.approx(0.2, abs=0.03)


def test_the_fastest_backend_comes_first() -> None:
    loads = {"a": Load(0, 0.9), "b": Load(0, 0.2), "c": Load(0, 0.5)}

    assert order("fastest", loads) == ["b", "c", "a"]


def test_a_backend_of_unknown_speed_gets_one_request() -> None:
    known = {"a": Load(0, 0.9), "b": Load(0, 0.2)}

    assert order("fastest", {**known, "c": Load(0, None)}) == ["c", "b", "a"]
    assert order("fastest", {**known, "c": Load(1, None)}) == ["b", "a", "c"]


# The same conversation at the same backend


def test_each_turn_of_a_conversation_has_the_same_first_backend() -> None:
    first = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    later = [*first, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "why"}]

    keys = {conversation_key("alice", "", Request(messages)) for messages in (first, later)}

    assert len(keys) == 1


def test_the_turns_of_a_session_share_a_key_whatever_they_say() -> None:
    one, two = ([{"role": "user", "content": text}] for text in ("hi", "ho"))

    assert conversation_key("alice", "s", Request(one)) == conversation_key(
        "alice", "s", Request(two)
    )


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("alice", "s", "hi"), ("bob", "s", "hi")),
        (("alice", "s", "hi"), ("alice", "t", "hi")),
        (("alice", "", "hi"), ("alice", "", "ho")),
        (("alice", "", "hi"), ("bob", "", "hi")),
    ],
    ids=["owner of a session", "session", "prompt", "owner"],
)
def test_different_conversations_have_different_keys(
    one: tuple[str, str, str], two: tuple[str, str, str]
) -> None:
    keys = {
        conversation_key(owner, session, Request([{"role": "user", "content": text}]))
        for owner, session, text in (one, two)
    }

    assert len(keys) == 2


def test_conversations_are_spread_over_the_backends() -> None:
    first = Counter(order("prefix", key=bytes([n, n // 7]))[0] for n in range(256))

    assert all(60 < first[name] < 110 for name in NAMES)


@given(key=st.binary(max_size=16))
def test_when_a_backend_goes_only_its_own_conversations_move(key: bytes) -> None:
    whole = order("prefix", key=key)
    rules = RouteRules(backends=("a", "b"), policy="prefix")

    left = preference(rules, lambda _: Load(), key=key, draw=lambda: 0.0)

    assert left == [name for name in whole if name != "c"]


def test_a_much_busier_backend_is_passed_over() -> None:
    home, *others = order("prefix", key=b"k")

    def first(busy: int, least: int) -> str:
        loads = {home: Load(busy), **{name: Load(least) for name in others}}
        return order("prefix", loads, key=b"k")[0]

    assert first(busy=4, least=0) == first(busy=24, least=10) == home
    assert first(busy=5, least=0) == first(busy=25, least=10) == others[0]


@given(
    policy=st.sampled_from(POLICIES),
    busy=st.lists(st.integers(0, 100), min_size=3, max_size=3),
    times=st.lists(st.none() | st.floats(0, 100), min_size=3, max_size=3),
    seed=st.integers(),
)
def test_every_policy_names_each_backend_once(
    policy: str, busy: list[int], times: list[float | None], seed: int
) -> None:
    loads = {name: Load(*load) for name, *load in zip(NAMES, busy, times, strict=True)}

    found = order(policy, loads, key=b"k", draw=random.Random(seed).random)

    assert sorted(found) == [*NAMES]
