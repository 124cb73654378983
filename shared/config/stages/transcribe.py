"""The stage `transcribe`: what a client says becomes the last message of the user."""

from __future__ import annotations

from typing import Any

from shared.config.kinds import KINDS, kind_of
from shared.config.stages.spec import StageSpec
from shared.errors import ConfigurationError


def _backend(value: Any, where: str) -> str:
    kind = kind_of(value) if isinstance(value, str) else None
    if kind is None or not (kind.takes_audio or kind.name not in {*KINDS, "route"}):
        known = ", ".join(name for name, spec in KINDS.items() if spec.takes_audio)
        raise ConfigurationError(f"{where}: must be {known}, or a plug-in as package.module:Class")
    return str(value)


def _options(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{where}: must be a table")
    return value


TRANSCRIBE = StageSpec(
    name="transcribe", members={"backend": _backend, "options": _options}, required=("backend",)
)
