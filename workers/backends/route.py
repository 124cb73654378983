"""How requests reach the server of one model: headers, TLS files and proxy, from the models file
and the environment.

Here the names of environment variables become values. Errors name the member and the variable,
never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shared.config.kinds.spec import SCHEMES
from shared.config.model_connection import DIRECT
from shared.config.model_request import is_header_value
from shared.config.models import ENVIRONMENT, Model
from shared.errors import ConfigurationError
from shared.text.redaction import remember
from workers.backends.http.proxy import Proxy, parse_proxy, proxy_of
from workers.backends.http.tls import TlsFileInvalid, TlsFiles, client_context


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How to reach a model's server.

    Attributes:
        headers: in addition to the usual ones, with those of the kind, and the key if the model has
            one.
        tls: the files of the connection; used for schemes with TLS only.
        proxy: None: connect directly.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    tls: TlsFiles = TlsFiles()
    proxy: Proxy | None = None


def find_route(model: Model, environ: Mapping[str, str]) -> Route:
    """Read the variables and check the files that a model names.

    Raises:
        ConfigurationError: a variable is missing or no valid value, a file cannot be used, or the
            proxy cannot be.
    """
    where = f"models.{model.name}"
    headers = {
        name: _header_value(value, f"{where}.headers: {name!r}", environ)
        for name, value in model.rules.headers.items()
    }
    given = {name.lower() for name in headers}
    headers |= {n: value for n, value in model.kind.headers.items() if n.lower() not in given}
    if key := _read_key(model, environ):
        headers[model.kind.header] = f"{model.kind.header_prefix}{key}"
    connection = model.connection
    tls = TlsFiles(connection.ca_file, connection.client_cert, connection.client_key)
    try:
        client_context(tls)
    except TlsFileInvalid as exc:
        raise ConfigurationError(f"{where}: {exc}") from exc
    return Route(headers=headers, tls=tls, proxy=_find_proxy(model, environ))


def expand(text: str, where: str, environ: Mapping[str, str]) -> str:
    """Return a text with the values of the variables that it names as `${NAME}`.

    Raises:
        ConfigurationError: a variable is missing or empty.
    """

    def value(match: re.Match[str]) -> str:
        found = environ.get(match[1], "").strip()
        if not found:
            raise ConfigurationError(f"{where}: set {match[1]}, which the models file names")
        remember(found)
        return found

    return ENVIRONMENT.sub(value, text)


def _header_value(text: str, where: str, environ: Mapping[str, str]) -> str:
    value = expand(text, where, environ)
    if not is_header_value(value):
        raise ConfigurationError(
            f"{where}: its variable holds characters that no header can have: "
            "set it to printable ASCII on one line"
        )
    return value


def _find_proxy(model: Model, environ: Mapping[str, str]) -> Proxy | None:
    given = model.connection.proxy
    if given == DIRECT:
        return None
    if given:
        where = f"models.{model.name}.proxy"
        return parse_proxy(expand(given, where, environ), where)
    try:
        parts = urlsplit(model.base_url)
        scheme = SCHEMES[parts.scheme]
        host, port = parts.hostname or "", parts.port or scheme.port
    except (ValueError, KeyError):
        return None  # the backend says that the URL is no address
    found = proxy_of(host, port, is_tls=scheme.is_tls, environ=environ)
    return parse_proxy(found[1], found[0]) if found else None


def _read_key(model: Model, environ: Mapping[str, str]) -> str:
    if not model.api_key_env:
        return ""
    key = environ.get(model.api_key_env, "").strip()
    if not key:
        raise ConfigurationError(
            f"models.{model.name}: set {model.api_key_env} to the backend's key"
        )
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            f"models.{model.name}: {model.api_key_env} holds characters that no key can have: "
            "set it to the backend's key, in ASCII and on one line"
        )
    remember(key)
    return key
