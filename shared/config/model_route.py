"""The members of a table in the models file that puts several backends behind one name.

Such a table has no server of its own: `route` names other tables of the file, which have one each.
A route in a route is refused, so there are no circles. Which backend answers a request is decided
by workers (workers/routing/).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.errors import ConfigurationError

POLICIES = ("order", "least_busy", "weighted", "fastest", "prefix")
ROUTE_BACKENDS_MAX = 16
BACKEND_WEIGHT_MAX = 1_000
HEDGE_MIN_S, HEDGE_MAX_S = 0.05, 600.0
ROUTE_MEMBERS = ("route", "policy", "weights", "hedge_after_s")
# The members that a table with `route` may have.
ALLOWED = (*ROUTE_MEMBERS, "on_takeover")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRules:
    """Several backends behind one name.

    Attributes:
        backends: the names of their tables, in the order of the file.
        policy: one of `POLICIES`: which backend is asked first.
        weights: one for each backend, from 1 to `BACKEND_WEIGHT_MAX`; empty for other policies than
            `weighted`.
        hedge_after_s: a second backend is asked when the first one is silent for so long; None:
            never.
    """

    backends: tuple[str, ...]
    policy: str = "order"
    weights: tuple[int, ...] = ()
    hedge_after_s: float | None = None

    def without(self, names: Collection[str]) -> RouteRules | None:
        """Return the route without these backends; None: no backend is left."""
        kept = [at for at, name in enumerate(self.backends) if name not in names]
        if not kept:
            return None
        weights = tuple(self.weights[at] for at in kept) if self.weights else ()
        return replace(self, backends=tuple(self.backends[at] for at in kept), weights=weights)


def parse_route(table: Mapping[str, Any], where: str) -> RouteRules:
    """Read the members of a table with `route`. `check_routes` checks the names.

    Args:
        where: the place of the table, for messages.

    Raises:
        ConfigurationError: a member of a table with a server, or a value that is not allowed.
    """
    for member in table:
        if member not in ALLOWED:
            why = "belongs to the table of a backend: write it in the tables that `route` names"
            raise ConfigurationError(f"{where}.{member}: {why}")
    backends = _names(table["route"], f"{where}.route")
    policy = table.get("policy", "order")
    if policy not in POLICIES:
        raise ConfigurationError(f"{where}.policy: must be one of {', '.join(POLICIES)}")
    hedge_after_s = None
    if "hedge_after_s" in table:
        hedge_after_s = _seconds(table["hedge_after_s"], f"{where}.hedge_after_s")
        if len(backends) == 1:
            raise ConfigurationError(f"{where}.hedge_after_s: needs a second backend in `route`")
    weights = _weights(table, backends, policy, where)
    return RouteRules(
        backends=backends, policy=policy, weights=weights, hedge_after_s=hedge_after_s
    )


def check_route_names(name: str, route: RouteRules, tables: Mapping[str, bool], where: str) -> None:
    """Check the names in a route.

    Args:
        name: of the table with the route.
        tables: whether each table of the file is a route itself.

    Raises:
        ConfigurationError: a name that cannot stand in a route.
    """
    for backend in route.backends:
        if backend == name:
            raise ConfigurationError(f"{where}.route: {name!r} is this table itself")
        if backend == "*":
            why = "stands for every model of a server: write a table for one model"
            raise ConfigurationError(f"{where}.route: '*' {why}")
        if backend not in tables:
            why = f"no table [models.{backend}] in this file"
            raise ConfigurationError(f"{where}.route: {backend!r}: {why}")
        if tables[backend]:
            why = "is a route too: name its backends here instead"
            raise ConfigurationError(f"{where}.route: {backend!r} {why}")


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigurationError(f"{where}: must be a list of names of tables")
    if not value:
        raise ConfigurationError(f"{where}: is empty: name at least one table of a backend")
    if len(value) > ROUTE_BACKENDS_MAX:
        raise ConfigurationError(f"{where}: must have at most {ROUTE_BACKENDS_MAX} names")
    twice = [name for name in value if value.count(name) > 1]
    if twice:
        raise ConfigurationError(f"{where}: {twice[0]!r} stands there twice; see `weights`")
    return tuple(value)


def _seconds(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not HEDGE_MIN_S <= value <= HEDGE_MAX_S:
        span = f"{HEDGE_MIN_S:g} to {HEDGE_MAX_S:g}"
        raise ConfigurationError(f"{where}: must be a number of seconds from {span}")
    return float(value)


def _weights(
    table: Mapping[str, Any], backends: Sequence[str], policy: str, where: str
) -> tuple[int, ...]:
    value = table.get("weights")
    if policy != "weighted":
        if value is not None:
            raise ConfigurationError(f'{where}.weights: needs policy = "weighted"')
        return ()
    form = f"must be a list of {len(backends)} whole numbers from 1 to {BACKEND_WEIGHT_MAX}"
    what = f"{form}, one for each name of `route`"
    if value is None:
        raise ConfigurationError(f'{where}.weights: is missing: policy = "weighted" needs it')
    is_list = isinstance(value, list) and len(value) == len(backends)
    if not is_list or not all(type(n) is int and 1 <= n <= BACKEND_WEIGHT_MAX for n in value):
        raise ConfigurationError(f"{where}.weights: {what}")
    return tuple(value)
