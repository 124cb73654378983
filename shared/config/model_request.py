"""The members of a model's table that change the requests to its server.

The rules say which members of a request are left out, renamed or set, which members of ours the
server gets as well, and which headers it gets. Pure: reads the decoded TOML and changes bodies.
Does not know where requests go.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.errors import ConfigurationError
from shared.text.json_values import INTEGERS

# Without these members no answer could be read, so no rule may touch them.
PROTECTED = ("messages", "stream")
NEVER_SET = {
    "messages": "it holds the prompt",
    "stream": "every answer is streamed",
    "model": "use the member `model` of the table",
    "n": "one generation is one answer",
}
# Members that the dialects translate; a copy of the client's form would contradict the translation.
NEVER_FORWARDED = (
    *("model", "messages", "stream", "stream_options", "n"),
    *("input", "prompt", "params", "instructions", "tools", "tool_choice"),
)
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)  # RFC 9110, 5.6.2
# The worker's HTTP client writes these itself: the framing, and what RFC 9110, 7.6.1, names.
NEVER_HEADERS = frozenset(
    (
        *("connection", "content-length", "content-type", "expect", "host", "keep-alive"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding"),
        "upgrade",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """How a request to one model's server differs from the usual one.

    Attributes:
        omit: members that the server does not get.
        rename: the server's name of a member, by its usual name.
        set: members that every request has. They win over the client's; objects are merged.
        forward: members of the client's body that the server gets as well, although Tailrace reads
            them itself or leaves them out.
        headers: further headers. `${NAME}` in a value stands for an environment variable.
    """

    omit: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    forward: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body that the server gets. `omit` comes first, then `rename`, then `set`."""
        kept = {name: value for name, value in body.items() if name not in self.omit}
        renamed = {new: kept.pop(old) for old, new in self.rename.items() if old in kept}
        # If the client has sent the new name itself, the client's value stays.
        return _merged(renamed | kept, self.set)

    def forwarded(self, members: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
        """Return `params` with the members of the client's body that the server shall get."""
        return {name: members[name] for name in self.forward if name in members} | dict(params)


REQUEST_MEMBERS = ("omit", "rename", "set", "forward", "headers")


def parse_rules(table: Mapping[str, Any], where: str, key_header: str) -> RequestRules:
    """Check the members of a model's table that this module reads.

    Args:
        where: the place of the table, for messages.
        key_header: the header that gets the key of `api_key_env`.

    Raises:
        ConfigurationError: a value that is not allowed.
    """
    rules = RequestRules(
        omit=_names(table.get("omit", []), f"{where}.omit", PROTECTED),
        rename=_strings(table.get("rename", {}), f"{where}.rename"),
        set=_table(table.get("set", {}), f"{where}.set"),
        forward=_names(table.get("forward", []), f"{where}.forward", NEVER_FORWARDED),
        headers=_strings(table.get("headers", {}), f"{where}.headers"),
    )
    for old, new in rules.rename.items():
        for name in (old, new):
            if name in PROTECTED or not name:
                raise ConfigurationError(f"{where}.rename: {name!r} cannot be renamed")
        if old in rules.omit:
            raise ConfigurationError(f"{where}: {old!r} is in `omit` and in `rename`: choose one")
    for name, value in rules.set.items():
        if name in NEVER_SET:
            raise ConfigurationError(f"{where}.set.{name}: cannot be set: {NEVER_SET[name]}")
        _check_json(value, f"{where}.set.{name}")
    _check_headers(rules.headers, where, key_header if table.get("api_key_env") else "")
    return rules


def is_header_value(text: str) -> bool:
    """Whether a text can be the value of a header: printable ASCII, with no space at its ends."""
    return text.isascii() and text.isprintable() and text == text.strip()


def _merged(body: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(body)
    for name, value in given.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _names(value: Any, where: str, refused: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ConfigurationError(f"{where}: must be a list of member names")
    for name in value:
        if name in refused:
            raise ConfigurationError(f"{where}: {name!r} is not allowed here")
    return tuple(value)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be a table")
    return value


def _strings(value: Any, where: str) -> dict[str, str]:
    table = _table(value, where)
    if not all(isinstance(text, str) for text in table.values()):
        raise ConfigurationError(f"{where}: must be a table of strings")
    return table


def _check_headers(headers: Mapping[str, str], where: str, key_header: str) -> None:
    seen = set()
    for name, value in headers.items():
        place = f"{where}.headers: {name!r}"
        if HEADER_NAME.fullmatch(name) is None:
            raise ConfigurationError(f"{place} is not the name of a header")
        if name.lower() in NEVER_HEADERS:
            raise ConfigurationError(f"{place} cannot be set: Tailrace writes it itself")
        if name.lower() == key_header.lower():
            raise ConfigurationError(f"{place} and `api_key_env`: choose one")
        if name.lower() in seen:
            raise ConfigurationError(f"{place} is there twice")
        if not is_header_value(value):
            raise ConfigurationError(f"{place}: the value must be printable ASCII on one line")
        seen.add(name.lower())


def _check_json(value: Any, where: str) -> None:
    """Check that a value of TOML can be written as JSON: TOML also has dates, nan and inf."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_json(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, where)
    elif isinstance(value, bool | str):
        return
    elif isinstance(value, int):
        if value not in INTEGERS:
            raise ConfigurationError(f"{where}: the number is too large")
    elif not isinstance(value, float) or not math.isfinite(value):
        raise ConfigurationError(f"{where}: JSON has no such value; write it as a string")
