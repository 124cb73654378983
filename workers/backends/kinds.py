"""Finds the code of a kind of backend: `build` in `workers/backends/<kind>/backend.py`.

The code is imported when a model of the models file has this kind, because some kinds need packages
that not every installation has.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from shared.config.models import Model
from shared.config.settings import Settings
from workers.backends.contract import Backend
from workers.backends.http.upstream_http import UpstreamHttp


class Build(Protocol):
    """Builds the backend of one model. Opens no connection.

    Args:
        http: the connections over HTTP, shared by all backends of the process.
        environ: holds the variables that the model's table names.

    Raises:
        ConfigurationError: a variable is missing or invalid, or a member cannot be used.
    """

    def __call__(
        self, model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
    ) -> Backend: ...


def builder_of(kind: str) -> Build:
    """Return the function that builds backends of a kind of `KINDS`."""
    return cast(Build, import_module(f"workers.backends.{kind}.backend").build)
