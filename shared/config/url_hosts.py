"""Which URLs in a prompt a model server may be handed: a list of hosts, read strictly. Pure.

A model server fetches what it is told to, from where it stands. So a URL passes a list only if
every parser reads the same host in it: what two parsers could read differently is refused, whatever
it names. Redirects and name servers are beyond this: docs/security.md, "Not defended".
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
# The host ends with the first slash: not all parsers agree on `?`, `#`, `@` and backslashes there.
_URL = re.compile(
    r"https?://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?(?:/[!-\[\]-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class UrlHosts:
    """The hosts that may be named.

    Attributes:
        is_any: every URL passes, read or not.
        names: in lower case; those below `*.example.org` stand in `above` as `.example.org`.
    """

    is_any: bool = False
    names: frozenset[str] = frozenset()
    above: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Say whether a URL may be handed on: it is the content itself, or names a listed host."""
        if self.is_any or url[:5].lower() == "data:":
            return True
        host = host_of(url)
        if host is None:
            return False
        return host in self.names or (not is_address(host) and host.endswith(self.above))


def host_of(url: str) -> str | None:
    """Return the host in lower case; None: it is no plain http or https URL.

    Refused are, among others, users and passwords, backslashes, spaces and tabs, percent signs in
    the host, names that are not ASCII, a dot at the end, and IPv4 addresses in odd forms.
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
        if _NUMBER.fullmatch(host.rpartition(".")[2]):  # then parsers take it for an address
            return str(IPv4Address(host))
    except (AddressValueError, ValueError):
        return None
    return host if _NAME.fullmatch(host) else None


def is_address(host: str) -> bool:
    """Whether a host of `host_of` is an address and no name."""
    return host.startswith("[") or host.rpartition(".")[2].isdigit()


@lru_cache(maxsize=16)
def read_hosts(value: str) -> UrlHosts:
    """Read the setting: empty is every URL, `none` is none, else hosts separated by commas.

    Raises:
        ConfigurationError: an entry is no host.
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
