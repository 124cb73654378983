"""The kind `local`: a model that the worker computes itself, in processes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.config.kinds.spec import KindSpec, count, text
from shared.config.local_models import INSTALL
from shared.errors import ConfigurationError


def _file(value: Any, where: str) -> str:
    path = text(value, where)
    if not Path(path).is_absolute() or not path.endswith(".gguf"):
        raise ConfigurationError(f"{where}: must be the absolute path of a .gguf file")
    return path


LOCAL = KindSpec(
    name="local",
    styles=("exact",),
    needs=("cyllama",),
    install=INSTALL,
    continues_always=True,
    members={
        "file": _file,
        "system": text,
        "processes": count(1, 16),
        "threads": count(1, 64),
        "context_tokens": count(256, 131_072),
        "memory_mb": count(256, 1_048_576),
    },
)
