"""Describes a stage: the members that its tables in the models file may have, and their checks.

A stage stands between a model and the log. Its code is the folder `workers/stages/<name>/`. API
nodes and the jobs role read the same models file and must not load that code, so the members are
described here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.config.kinds.spec import Check
from shared.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTable:
    """One table of the list `stages` of a model.

    Attributes:
        stage: a name of `STAGES`, or a third party's stage.
        options: the other members, checked.
        where: the place of the table in the models file, for messages.
        folder: of the models file; relative paths begin here.
    """

    stage: str
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = "stages"
    folder: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpec:
    """The members of a stage.

    Attributes:
        name: the value of `stage`, and the name of the folder in `workers/stages/`.
        members: each with its check.
        required: members that the table must have.
        one_of: the table must have at least one of these members; empty: no such rule.
        is_repeatable: the list of a model may have several tables of this stage.
        has_any_member: the stage checks its members itself, in the worker.
    """

    name: str
    members: Mapping[str, Check] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    is_repeatable: bool = False
    has_any_member: bool = False

    def check_members(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the members of a table, checked.

        Raises:
            ConfigurationError: an unknown or missing member, or a value that is not allowed.
        """
        if self.has_any_member:
            return dict(table)
        for name in table:
            if name not in self.members:
                known = ", ".join(sorted(self.members))
                raise ConfigurationError(f"{where}: unknown member {name!r}; known: {known}")
        for name in self.required:
            if name not in table:
                raise ConfigurationError(f"{where}: {name} is missing: {self.name} needs it")
        if self.one_of and not any(name in table for name in self.one_of):
            names = ", ".join(self.one_of)
            raise ConfigurationError(f"{where}: {self.name} needs at least one of {names}")
        return {name: self.members[name](value, f"{where}.{name}") for name, value in table.items()}


# Checks that several stages use


def number(least: float, most: float) -> Check:
    """Return a check that a value is a number from `least` to `most`."""

    def check(value: Any, where: str) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise ConfigurationError(f"{where}: must be a number from {least:g} to {most:g}")
        return float(value)

    return check


def texts(most: int, characters_max: int) -> Check:
    """Return a check that a value is a list of at most `most` texts, none of them empty."""

    def check(value: Any, where: str) -> list[str]:
        if not isinstance(value, list) or not value or len(value) > most:
            raise ConfigurationError(f"{where}: must be a list of 1 to {most} strings")
        for at, text in enumerate(value):
            if not isinstance(text, str) or not text.strip():
                raise ConfigurationError(f"{where}[{at}]: must be a string, and not empty")
            if len(text) > characters_max:
                raise ConfigurationError(f"{where}[{at}]: at most {characters_max} characters")
        return value

    return check
