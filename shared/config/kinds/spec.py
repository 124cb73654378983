"""Describes a kind: the members that its tables in the models file may have, and their checks.

A kind is a way to get answers: the wire of a family of servers, or a source in the worker itself.
Its code is the folder `workers/backends/<name>/`. API nodes read the same models file and must not
load that code, so the kind's entry in the models file is described here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, NamedTuple

from shared.errors import ConfigurationError

# Checks one member of a table. Receives the value and the place of the member, for messages.
# Returns the value to keep, or raises ConfigurationError.
Check = Callable[[Any, str], Any]


class Scheme(NamedTuple):
    """A scheme of `base_url`. A port of 0: the URL has to name the port."""

    port: int
    is_tls: bool


SCHEMES: Mapping[str, Scheme] = {
    "http": Scheme(80, False),
    "https": Scheme(443, True),
    "ws": Scheme(80, False),
    "wss": Scheme(443, True),
    "grpc": Scheme(0, False),
    "grpcs": Scheme(443, True),
}
HTTP = ("http", "https")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindSpec:
    """The members of a kind in the models file, and how its servers continue an answer.

    Attributes:
        name: the value of `backend`, and the name of the folder in `workers/backends/`.
        schemes: that `base_url` may have; empty: the kind has no server.
        has_rules: the members of shared/config/model_request.py are allowed.
        header: the header that gets the key of `api_key_env`.
        header_prefix: stands in the header before the key.
        headers: of each request; `headers` of the models file win.
        styles: the forms in which a request can ask to continue an answer, the usual one first;
            empty: the kind cannot continue.
        continues_always: the first form holds at every server, and needs no trial.
        members: further members of the table, each with its check.
        has_any_member: the backend checks further members itself (it is not loaded here).
        required: further members that the table must have.
        takes_audio: its backends read the audio input of a generation.
        needs: modules that not every installation has.
        install: how to get them.
        models_path: where a server lists its models, behind `base_url`; empty: it has no list.
        models_query: of the URL of this list, so that the list is whole.
    """

    name: str
    schemes: tuple[str, ...] = ()
    has_rules: bool = False
    header: str = "Authorization"
    header_prefix: str = "Bearer "
    headers: Mapping[str, str] = field(default_factory=dict)
    styles: tuple[str, ...] = ()
    continues_always: bool = False
    members: Mapping[str, Check] = field(default_factory=dict)
    has_any_member: bool = False
    required: tuple[str, ...] = ()
    models_path: str = ""
    models_query: str = ""
    takes_audio: bool = False
    needs: tuple[str, ...] = ()
    install: str = ""

    @property
    def has_server(self) -> bool:
        return bool(self.schemes)

    def missing(self) -> str:
        """Return which modules are missing, with the remedy; empty: all are installed."""
        if all(map(_is_installed, self.needs)):
            return ""
        names = " and ".join(self.needs)
        return f"the backend {self.name} needs {names}, not installed here: {self.install}"

    def check_members(self, table: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the further members of a table, checked.

        Args:
            table: the members that are not of every kind.

        Raises:
            ConfigurationError: an unknown or missing member, or a value that is not allowed.
        """
        if self.has_any_member:
            return dict(table)
        for name in self.required:
            if name not in table:
                raise ConfigurationError(f"{where}: {name} is missing: {self.name} needs it")
        for name in table:
            if name not in self.members:
                raise ConfigurationError(f"{where}: unknown member {name!r}")
        return {name: self.members[name](value, f"{where}.{name}") for name, value in table.items()}


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that the module is in
        return False


# Checks that several kinds and stages use


def text(value: Any, where: str) -> str:
    """Check a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{where}: must be a string, and not empty")
    return value


def switch(value: Any, where: str) -> bool:
    """Check a boolean."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{where}: must be true or false")
    return value


def one_of(*choices: str) -> Check:
    """Return a check that a string is one of `choices`."""

    def check(value: Any, where: str) -> str:
        if value not in choices:
            raise ConfigurationError(f"{where}: must be one of {', '.join(choices)}")
        return str(value)

    return check


def count(least: int, most: int) -> Check:
    """Return a check that a value is an integer from `least` to `most`."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ConfigurationError(f"{where}: must be a whole number from {least} to {most}")
        return value

    return check
