"""Reads the part of a Redis URL between `://` and `?`: login, hosts, path. Pure.

urllib reads one host in a URL. Sentinel and cluster URLs name several, so that part is read here:

    redis+sentinel://user:password@s1:26379,[2001:db8::2]:26379/service/0
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple
from urllib.parse import unquote

HOSTS_MAX = 32  # in one URL
_HOST = re.compile(
    r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<name>[^:\[\]@\s]+))(?::(?P<port>[0-9]*))?", re.ASCII
)

HostPort = tuple[str, int]


class HostList(NamedTuple):
    """The parts of a URL with several hosts. `path` has no leading slash and is still encoded."""

    username: str
    password: str
    hosts: tuple[HostPort, ...]
    path: str
    query: str


def split_hosts(rest: str, port: int) -> HostList:
    """Split the text behind `://`.

    Args:
        port: of hosts that name none.

    Raises:
        ValueError: it is malformed; the message holds no part of the login.
    """
    before, _, query = rest.partition("?")
    authority, _, path = before.partition("/")
    login, _, hosts = authority.rpartition("@")
    username, _, password = login.partition(":")
    found = tuple(_host(text, port) for text in hosts.split(","))
    if len(found) > HOSTS_MAX:
        raise ValueError(f"{len(found)} hosts: name at most {HOSTS_MAX}")
    if len(set(found)) < len(found):
        raise ValueError("a host is named twice")
    return HostList(unquote(username), unquote(password), found, path, query)


def _host(text: str, port: int) -> HostPort:
    """Read one `host`, `host:port` or `[address]:port`."""
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("malformed")
    number = int(match["port"][:6]) if match["port"] else port
    if match["port"] == "" or not 0 < number < 65_536:
        raise ValueError("the port of each host must be from 1 to 65535")
    if match["name"]:
        return unquote(match["name"]), number
    address = match["v6"].partition("%")[0]  # the rest names an interface: fe80::1%eth0
    try:
        IPv6Address(address)
    except AddressValueError:
        raise ValueError("malformed") from None
    return unquote(match["v6"]), number
