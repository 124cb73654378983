"""How much each owner may use: the defaults of the environment, limits.toml, and claims of tokens.

    [groups.free]                # a group names its owners, or a token names its groups
    owners = ["alice", "team-*"]
    active_max = 2
    tokens_per_day = 200_000

    [owners.alice]               # only alice; wins over her group
    active_max = 4
    weight = 2

For each value the first of these counts that has it: the claim `limits` of a token, the owner's
table, the table of the owner's group, the environment. 0 stands for no limit. Pure: knows no file
and no Redis. Source: docs/operations.md, "Limits of an owner".
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from shared.config.settings import NUMBERS_END, Settings
from shared.errors import ConfigurationError

OWNER_WEIGHT_MAX = 100
VALUE_MAX = NUMBERS_END - 1
NAMES_MAX = 10_000  # tables of a file, and owners that one group lists
PREFIX = "owner_"  # of the settings with the defaults


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """The limits of one owner, over all nodes; 0: no limit.

    Attributes:
        weight: the owner's share where owners take turns, 1 to `OWNER_WEIGHT_MAX`.
        active_max: generations that wait or run.
        connections_max: open readers: streams, long polls, answers that are waited for, sockets.
        prompts_per_min, tokens_per_min: as much at once, and refilled evenly in a minute.
        tokens_per_day: of a day in UTC.
    """

    weight: int = 1
    active_max: int = 0
    connections_max: int = 0
    prompts_per_min: int = 0
    tokens_per_min: int = 0
    tokens_per_day: int = 0

    @property
    def of_lines(self) -> OwnerLimits:
        """The limits that hold for the lines of the owner's batches."""
        return OwnerLimits(self.weight, tokens_per_day=self.tokens_per_day)

    @property
    def has_prompt_limit(self) -> bool:
        """Whether a prompt of this owner may be refused for its limits."""
        return bool(
            self.active_max or self.prompts_per_min or self.tokens_per_min or self.tokens_per_day
        )


NO_LIMITS = OwnerLimits()
NUMBERS = tuple(each.name for each in fields(OwnerLimits))


def number_problem(name: str, value: Any) -> str:
    """Return the fault of the value of a limit, for a message; "": the value is good."""
    least, most = (1, OWNER_WEIGHT_MAX) if name == "weight" else (0, VALUE_MAX)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        return f"must be a whole number from {least} to {most}"
    return ""


def claim_problem(claims: Mapping[str, Any]) -> str:
    """Return the fault of the claim `limits`, for a message that quotes no value.

    Other members are of other systems, and ignored.
    """
    for name in NUMBERS:
        if name in claims and (problem := number_problem(name, claims[name])):
            return f"{name} {problem}"
    return ""


@dataclass(frozen=True, slots=True)
class Group:
    """One table below `groups`.

    Attributes:
        numbers: the limits that the table has.
        owners, beginnings: names of owners, and beginnings of names.
    """

    numbers: Mapping[str, int]
    owners: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()

    def has(self, owner: str) -> bool:
        """Whether the table lists the owner."""
        return owner in self.owners or owner.startswith(self.beginnings)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of all owners.

    Attributes:
        defaults: of an owner that nothing else names.
        owners: by the name of the owner, the limits that its table has.
        groups: by name, in the order of the file.
    """

    defaults: OwnerLimits = NO_LIMITS
    owners: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)

    def of(
        self,
        owner: str,
        groups: Sequence[str] = (),
        claims: Mapping[str, Any] | None = None,
    ) -> OwnerLimits:
        """Return the limits of one owner.

        Args:
            groups: names of groups that a token names; the first that the file has counts. Without
                one, the first group of the file that lists the owner counts.
            claims: the claim `limits` of a token, as `claim_problem` has accepted it.
        """
        own, claimed = self.owners.get(owner, {}), claims or {}
        group = self._group_of(owner, groups) if self.groups else {}
        if not own and not group and not claimed:
            return self.defaults
        found = {name: getattr(self.defaults, name) for name in NUMBERS} | {**group, **own}
        found |= {name: claimed[name] for name in NUMBERS if name in claimed}
        return OwnerLimits(**found)

    def _group_of(self, owner: str, groups: Iterable[str]) -> Mapping[str, int]:
        for name in groups:
            if name in self.groups:
                return self.groups[name].numbers
        for group in self.groups.values():
            if group.has(owner):
                return group.numbers
        return {}


def defaults_of(settings: Settings) -> OwnerLimits:
    """Return the limits that the environment sets for every owner."""
    return OwnerLimits(**{name: getattr(settings, PREFIX + name) for name in NUMBERS[1:]})


def parse_limits(text: str, defaults: OwnerLimits, path: str) -> Limits:
    """Read the text of a limits.toml.

    Raises:
        ConfigurationError: no TOML, an unknown table or member, or a value outside its bounds.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        # tomllib's error is a ValueError. A number of 5,000 digits raises a plain ValueError.
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
    if unknown := sorted(set(tables) - {"owners", "groups"}):
        raise ConfigurationError(
            f"{path}: unknown table {unknown[0]!r}; limits go in [owners.NAME] and [groups.NAME]"
        )
    owners = {
        name: _numbers(table, f"{path}: owners.{name}")
        for name, table in _tables(tables, "owners", path)
    }
    groups = {
        name: _group(table, f"{path}: groups.{name}")
        for name, table in _tables(tables, "groups", path)
    }
    return Limits(defaults, owners, groups)


def _tables(tables: Mapping[str, Any], kind: str, path: str) -> Iterable[tuple[str, Any]]:
    found = tables.get(kind, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: {kind} must be a table of tables: [{kind}.NAME]")
    if len(found) > NAMES_MAX:
        raise ConfigurationError(f"{path}: at most {NAMES_MAX} tables in {kind}")
    return found.items()


def _group(table: Any, where: str) -> Group:
    listed = table.get("owners", []) if isinstance(table, dict) else []
    is_list = isinstance(listed, list) and all(isinstance(name, str) and name for name in listed)
    if not is_list or len(listed) > NAMES_MAX:
        raise ConfigurationError(f"{where}.owners: must list at most {NAMES_MAX} names of owners")
    if any("*" in name[:-1] for name in listed):
        raise ConfigurationError(f"{where}.owners: each a name, or its beginning and then a *")
    return Group(
        _numbers(table, where, known=("owners",)),
        frozenset(name for name in listed if not name.endswith("*")),
        tuple(name[:-1] for name in listed if name.endswith("*")),
    )


def _numbers(table: Any, where: str, known: Sequence[str] = ()) -> Mapping[str, int]:
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: must be a table")
    for name, value in table.items():
        if name not in NUMBERS and name not in known:
            words = ", ".join((*NUMBERS, *known))
            raise ConfigurationError(f"{where}: unknown member {name!r}; known: {words}")
        if name in NUMBERS and (problem := number_problem(name, value)):
            raise ConfigurationError(f"{where}.{name}: {problem}")
    return {name: value for name, value in table.items() if name in NUMBERS}
