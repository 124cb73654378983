"""The model backends, built from the models file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shared.config.models import Model, ModelTable, missing_parts
from shared.config.settings import Settings
from shared.errors import ConfigurationError
from workers.backends.contract import Backend, BackendItem, Finish, is_plain
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.kinds import builder_of

__all__ = ["Backend", "Finish", "BackendItem", "build_backends", "is_plain"]


def build_backends(
    models: Mapping[str, Model],
    settings: Settings,
    environ: Mapping[str, str],
    http: UpstreamHttp | None = None,
) -> dict[str, Backend]:
    """Build a backend for each model that is no route; returns them by model name.

    Opens no connection.

    Args:
        environ: holds the variables that `api_key_env`, `headers` and `proxy` name, and the
            variables of proxies.
        http: the connections of the process; None: of these backends alone.

    Raises:
        ConfigurationError: such a variable is missing or invalid, a certificate cannot be used, or
            a member of a model is invalid, or a package is missing that its kind needs.
    """
    for name, model in models.items():
        if missing := missing_parts(model):
            raise ConfigurationError(f"models.{name}: {missing}")
    connections = http or UpstreamHttp(settings)

    def build(model: Model) -> Backend:
        return builder_of(model.kind.name)(model, settings, connections, environ)

    if not isinstance(models, ModelTable) or models.pattern is None:
        return {name: build(model) for name, model in models.items() if model.route is None}
    found = ListedBackends(lambda name: build(models[name]))
    tables = models.tables.items()
    found.update((name, build(model)) for name, model in tables if model.route is None)
    return found


class ListedBackends(dict[str, Backend]):
    """Backends by model name; those of a server's list are built when they are first asked for."""

    def __init__(self, build: Callable[[str], Backend]) -> None:
        super().__init__()
        self._build = build

    def __missing__(self, name: str) -> Backend:
        self[name] = made = self._build(name)
        return made
