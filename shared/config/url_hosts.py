"""Decides which URLs in a prompt may go to a model server: a list of hosts, parsed strictly. Pure.

A model server fetches these URLs from its own network. So a URL passes only if every parser reads
the same host in it; a URL that two parsers could read differently is refused. This is no defence
against redirects and name servers: docs/security.md, "Not defended".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from shared.errors import ConfigurationError

VARIABLE = "TAILRACE_PART_URLS"
NONE = "none"
URL_CHARACTERS_MAX = 8_192
# Only a slash may end the host: parsers disagree about `?`, `#`, `@` and backslashes there.
_URL = re.compile(
    r"https?://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?(?:/[!-\[\]-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class UrlHosts:
    """The allowed hosts.

    Attributes:
        is_any: every URL passes, even one that cannot be parsed.
        names: lower case.
        above: suffixes: `*.example.org` is `.example.org` here.
    """

    is_any: bool = False
    names: frozenset[str] = frozenset()
    above: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Whether a URL may go to a model server: a `data:` URL, or one with a listed host."""
        if self.is_any or url[:5].lower() == "data:":
            return True
        host = host_of(url)
        if host is None:
            return False
        return host in self.names or (not is_address(host) and host.endswith(self.above))


def host_of(url: str) -> str | None:
    """Return the host of a plain http or https URL, in lower case; None: the URL is refused.

    This function refuses, among others, URLs with users and passwords, backslashes, spaces and
    tabs, percent signs in the host, names that are not ASCII, a dot at the end of the host, and
    IPv4 addresses in unusual forms.
    """
    if len(url) > URL_CHARACTERS_MAX:
        return None
    match = _URL.fullmatch(url)
    if match is None or int(match["port"] or 1) not in range(1, 65_536):
        return None
    host = match["host"].lower()
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1]).compressed}]"
        if _NUMBER.fullmatch(host.rpartition(".")[2]):  # parsers read such a host as an address
            return str(IPv4Address(host))
    except (AddressValueError, ValueError):
        return None
    return host if _NAME.fullmatch(host) else None


def is_address(host: str) -> bool:
    """Whether a result of `host_of` is an address and not a name."""
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


@lru_cache(maxsize=16)
def read_hosts(value: str) -> UrlHosts:
    """Parse the setting: empty allows every URL, `none` allows none; or hosts, comma-separated.

    Raises:
        ConfigurationError: an entry is not a host.
    """
    if not value.strip():
        return UrlHosts(is_any=True)
    if value.strip().lower() == NONE:
        return UrlHosts()
    names, above = set(), []
    for entry in (part.strip().lower() for part in value.split(",")):
        is_below = entry.startswith("*.")
        host = host_of(f"http://{entry.removeprefix('*.')}/")
        is_host = ":" not in entry or entry.startswith("[")
        if host is None or not is_host or (is_below and is_address(host)):
            raise ConfigurationError(
                f"{VARIABLE}: {entry!r} is no host: write none, or hosts like images.example.org "
                "or *.example.org, separated by commas, without schemes and ports"
            )
        if is_below:
            above.append(f".{host}")
        else:
            names.add(host)
    return UrlHosts(names=frozenset(names), above=tuple(above))
