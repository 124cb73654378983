"""Parses the `Host` header of a request, and compares it with the names that a node accepts.

The owner of a web page can point the page's name at the address of a node (DNS rebinding). Then the
browser treats the node as the page's own server and lets the page read all answers. Only the `Host`
header shows this. So a node without credentials accepts only names that no stranger can own:
loopback names, the address on which it listens, and the entries of TAILRACE_HOSTS.

Pure: resolves no name. Sources: RFC 9112 section 3.2, RFC 3986 section 3.2.2, RFC 6761
section 6.3 (localhost), docs/protocol.md, "Credentials".
"""

from __future__ import annotations

import re
from functools import lru_cache

from shared.errors import ConfigurationError
from shared.text.addresses import Address, as_address

HOST_BYTES_MAX = 261  # a name of 253 characters, a dot, a colon and a port

Host = Address | str  # a name: in lower case, without a final dot

_PORT = r"(?::[0-9]{0,5})?"
_LITERAL = re.compile(rf"\[([0-9A-Fa-f:.]+)(?:%[A-Za-z0-9._~%-]+)?\]{_PORT}", re.ASCII)
# The characters of a name in RFC 3986, without userinfo, path and spaces.
_NAME = re.compile(rf"((?:[A-Za-z0-9._~!$&'()*+;=,-]|%[0-9A-Fa-f]{{2}})+){_PORT}", re.ASCII)
_LABELS = r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_LISTED = re.compile(rf"(?:\*\.)?{_LABELS}", re.ASCII)


def read_host(value: str) -> Host | None:
    """Return the address or name in a `Host` header; None: the header is invalid.

    Only the usual spelling of an address is an address: `0x7f.1` is a name here, and no node has
    that name. The port, one final dot and the zone of an IPv6 address are removed, because they do
    not change the owner of the name. A name with an empty label (`a..b`) is invalid.
    """
    return None if len(value) > HOST_BYTES_MAX else _read_host(value)


@lru_cache(maxsize=256)  # nearly all requests of a node have one of a few values
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
    """Return whether a host is always this machine: 127.0.0.0/8, ::1, localhost, *.localhost."""
    if isinstance(host, str):
        return host == "localhost" or host.endswith(".localhost")
    return host.is_loopback


class HostAllowlist:
    """The hosts that a node without credentials accepts, besides loopback hosts.

    Args:
        bound: the host on which the node listens (TAILRACE_HOST).
        listed: names and addresses from the operator; `*.example.org` stands for every name that
            ends with `.example.org`.
    """

    def __init__(self, bound: str = "", listed: tuple[str, ...] = ()) -> None:
        names = [_normalized(name) for name in (bound, *listed) if name]
        self._exact = {name for name in names if not str(name).startswith("*.")}
        self._suffixes = tuple(str(name)[1:] for name in names if str(name).startswith("*."))

    def includes(self, host: Host, local_address: str = "") -> bool:
        """Return whether the node accepts `host`.

        Args:
            local_address: this node's address of the connection. It is accepted as a host: a page
                can have an address as its host only if it was loaded from that address.
        """
        if is_loopback(host) or host in self._exact:
            return True
        if isinstance(host, str):
            return host.endswith(self._suffixes)
        return host == as_address(local_address)


def read_hosts(value: str) -> tuple[str, ...]:
    """Read TAILRACE_HOSTS: names or addresses, separated by commas; ports are removed.

    Raises:
        ConfigurationError: an entry is not a name or an address.
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


def _normalized(text: str) -> Host:
    return as_address(text) or text.lower().removesuffix(".")
