"""The members of a model's table that say how a worker connects to its server.

Checks types and combinations only. API nodes read the same file and may not have the certificates,
so the worker opens the files (workers/backends/http/tls.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config.kinds.spec import SCHEMES
from shared.errors import ConfigurationError

FILES = ("ca_file", "client_cert", "client_key")
CONNECTION_MEMBERS = (*FILES, "proxy")
DIRECT = "direct"  # the value of `proxy` for no proxy, whatever the environment names


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to connect to one model's server.

    Attributes:
        ca_file: PEM certificates of the authorities to trust, instead of the system's.
        client_cert: PEM, the certificate to show to the server, with its chain.
        client_key: PEM, its key; empty: `client_cert` holds the key, too.
        proxy: the URL of an HTTP proxy, in which `${NAME}` stands for an environment variable, or
            `direct`; empty: as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say.
    """

    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    proxy: str = ""


def parse_connection(table: Mapping[str, Any], where: str, folder: Path) -> Connection:
    """Check the members of a model's table that this module reads.

    Args:
        table: its `base_url` has a scheme of `SCHEMES`.
        where: the place of the table, for messages.
        folder: of the models file; relative paths begin there.

    Raises:
        ConfigurationError: a value or combination that is not allowed.
    """
    given = {name: table[name] for name in CONNECTION_MEMBERS if name in table}
    for name, value in given.items():
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ConfigurationError(f"{where}.{name}: must be a string, and not empty")
        if name in FILES:
            scheme = str(table.get("base_url", "")).partition("://")[0]
            if not SCHEMES[scheme].is_tls:
                raise ConfigurationError(f"{where}.{name}: needs a base_url with {scheme}s://")
            given[name] = str(folder / value)
    if "client_key" in given and "client_cert" not in given:
        raise ConfigurationError(f"{where}.client_key: needs client_cert, its certificate")
    return Connection(**given)
