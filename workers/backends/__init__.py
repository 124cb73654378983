"""The model backends, built from the models file."""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.models import Model
from shared.config.settings import Settings
from workers.backends.contract import Backend, BackendItem, Finish, is_plain
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.kinds import builder_of

__all__ = ["Backend", "Finish", "BackendItem", "build_backends", "is_plain"]


def build_backends(
    models: Mapping[str, Model], settings: Settings, environ: Mapping[str, str]
) -> dict[str, Backend]:
    """Build a backend for each model; returns them by model name. Opens no connection.

    Args:
        environ: holds the variables that `api_key_env`, `headers` and `proxy` name, and the
            variables of proxies.

    Raises:
        ConfigurationError: such a variable is missing or invalid, a certificate cannot be used, or
            a member of a model is invalid.
    """
    http = UpstreamHttp(settings)
    return {
        name: builder_of(model.kind.name)(model, settings, http, environ)
        for name, model in models.items()
    }
