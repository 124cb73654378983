"""The `Host` of a request: read strictly, and compared with the names that a node answers to.

A page can give its own name the address of a node (DNS rebinding). The browser then takes the node
for the page's own server and lets the page read everything. Only the `Host` header shows that. So
a node without credentials answers to names that no stranger can own: loopback names, the address
that it listens on, and what the operator lists in TAILRACE_HOSTS.

Pure: no name is looked up. Sources: RFC 9112 section 3.2, RFC 3986 section 3.2.2, RFC 6761
section 6.3 (localhost), docs/protocol.md, "Credentials".
"""

from __future__ import annotations

import re
from functools import lru_cache

from shared.errors import ConfigurationError
from shared.text.addresses import Address, as_address

HOST_BYTES_MAX = 261  # a name of 253 characters, a dot, a colon and a port

Host = Address | str  # a name is in lower case, without its last dot

_PORT = r"(?::[0-9]{0,5})?"
_LITERAL = re.compile(rf"\[([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9._~%-]+)?\]{_PORT}", re.ASCII)
# What RFC 3986 allows in a name; userinfo, a path and spaces are no part of it.
_NAME = re.compile(rf"((?:[A-Za-z0-9._~!$&'()*+;=,-]|%[0-9A-Fa-f]{{2}})+){_PORT}", re.ASCII)
_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_LISTED = re.compile(rf"(?:\*\.)?{_LABELS}", re.ASCII)


def read_host(value: str) -> Host | None:
    """Return the address or name in a `Host` header; None: the header is invalid.

    An address counts as one in its usual spelling only: `0x7f.1` is a name here, that nobody has.
    The port, one last dot and the zone of an IPv6 address are left out: they change nothing in
    whose the name is.
    """
    return None if len(value) > HOST_BYTES_MAX else _read_host(value)


@lru_cache(maxsize=256)  # nearly every request has one of a few
def _read_host(value: str) -> Host | None:
    if literal := _LITERAL.fullmatch(value):
        return as_address(literal[1])
    name = _NAME.fullmatch(value)
    if name is None:
        return None
    text = name[1].lower()
    if address := as_address(text):
        return address
    text = text.removesuffix(".")
    return text if all(text.split(".")) else None  # no label is empty (RFC 1034, 3.1)


def is_loopback(host: Host) -> bool:
    """Whether a host is this machine and can be nothing else: 127.0.0.0/8, ::1, localhost."""
    if isinstance(host, str):
        return host == "localhost" or host.endswith(".localhost")
    return host.is_loopback


class Hosts:
    """The hosts that a node without credentials answers to, beside loopback ones.

    Args:
        bound: where it listens; TAILRACE_HOST.
        listed: names and addresses from the operator; `*.example.org` is every name below it.
    """

    def __init__(self, bound: str = "", listed: tuple[str, ...] = ()) -> None:
        names = [_normal(name) for name in (bound, *listed) if name]
        self._exact = {name for name in names if not str(name).startswith("*.")}
        self._below = tuple(str(name)[1:] for name in names if str(name).startswith("*."))

    def include(self, host: Host, arrived_at: str = "") -> bool:
        """Whether the node answers to `host`.

        Args:
            arrived_at: the address of ours that the connection came to. A page at an address in
                numbers has that very address as its origin, so such a name was given by nobody.
        """
        if is_loopback(host) or host in self._exact:
            return True
        if isinstance(host, str):
            return host.endswith(self._below)
        return host == as_address(arrived_at)


def read_hosts(value: str) -> tuple[str, ...]:
    """Read TAILRACE_HOSTS: names or addresses, separated by commas; a port is left out.

    Raises:
        ConfigurationError: an entry is neither.
    """
    return tuple(_read_listed(part.strip()) for part in value.split(",") if part.strip())


def _read_listed(text: str) -> str:
    if as_address(text) is not None:
        return text  # also an IPv6 address without brackets
    host = read_host(text)
    name = str(host)
    if host is None or (isinstance(host, str) and _LISTED.fullmatch(name) is None):
        raise ConfigurationError(
            f"TAILRACE_HOSTS: {text!r} is not like example.org, *.example.org or 192.0.2.1"
        )
    return name


def _normal(text: str) -> Host:
    return as_address(text) or text.lower().removesuffix(".")
