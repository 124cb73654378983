"""The order in which the backends of a route are asked, by the policy of the route. Pure.

    order        the order of the models file
    least_busy   fewest requests in flight first
    weighted     at random, by weight
    fastest      shortest time to the first token first
    prefix       the same conversation at the same backend, unless that backend is much busier

`prefix` is rendezvous hashing: each backend gets a score from the conversation's key and its own
name, and the highest score is first. All workers agree without asking each other. If a backend
goes, only its own conversations move.
Source: docs/routing.md, "Policies".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from shared.config.model_route import RouteRules
from shared.log.request import Request

# A backend is much busier than the least busy one with more than twice its requests in flight and
# `MUCH_BUSIER_BY` more. Below, a warm KV cache saves more time than an emptier queue.
MUCH_BUSIER_TIMES, MUCH_BUSIER_BY = 2, 4
KEY_BYTES = 16


class Load(NamedTuple):
    """The load of one backend.

    Attributes:
        busy: requests in flight.
        first_token_s: the usual time to the first token; None: not known.
    """

    busy: int = 0
    first_token_s: float | None = None


def preference(
    rules: RouteRules, load: Callable[[str], Load], *, key: bytes, draw: Callable[[], float]
) -> list[str]:
    """Return all backends of a route, the preferred one first.

    Args:
        load: returns the load of a backend.
        key: of the conversation: see `conversation_key`; for `prefix`.
        draw: returns a random number in [0, 1). Backends that are equal come in random order.
    """
    names = list(rules.backends)
    if rules.policy == "order" or len(names) == 1:
        return names
    if rules.policy == "weighted":
        return _weighted(names, rules.weights, draw)
    loads = {name: load(name) for name in names}
    if rules.policy == "prefix":
        return _by_prefix(names, loads, key)
    rank = _slowness if rules.policy == "fastest" else _busyness
    return sorted(names, key=lambda name: (rank(loads[name]), draw()))


def conversation_key(owner: str, session: str, request: Request) -> bytes:
    """Return the key of a conversation: the same in every turn of it.

    With a session it is the session. Without one it is the messages up to the first one of the
    user, which later turns repeat.
    """
    if session:
        return _digest(["session", owner, session])
    first: list[Mapping[str, Any]] = []
    for message in request.messages:
        first.append(message)
        if message.get("role") == "user":
            break
    return _digest(["messages", owner, first])


def _digest(value: list[Any]) -> bytes:
    raw = msgspec.json.encode(value, order="sorted")
    return hashlib.blake2b(raw, digest_size=KEY_BYTES).digest()


def _weighted(names: list[str], weights: tuple[int, ...], draw: Callable[[], float]) -> list[str]:
    # Efraimidis and Spirakis: the order of u ^ (1 / weight) draws without replacement by weight.
    scores = {name: draw() ** (1 / weight) for name, weight in zip(names, weights, strict=True)}
    return sorted(names, key=lambda name: -scores[name])


def _by_prefix(names: list[str], loads: Mapping[str, Load], key: bytes) -> list[str]:
    least = min(load.busy for load in loads.values())

    def is_much_busier(name: str) -> bool:
        return loads[name].busy > MUCH_BUSIER_TIMES * least + MUCH_BUSIER_BY

    def score(name: str) -> bytes:
        return hashlib.blake2b(key + name.encode(), digest_size=KEY_BYTES).digest()

    ranked = sorted(names, key=score, reverse=True)
    return sorted(ranked, key=is_much_busier)  # a stable sort


def _busyness(load: Load) -> float:
    return load.busy


def _slowness(load: Load) -> float:
    if load.first_token_s is not None:
        return load.first_token_s
    # A backend of unknown speed gets one request, which tells. Meanwhile it counts as the slowest.
    return 0.0 if load.busy == 0 else float("inf")
