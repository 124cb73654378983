"""The kinds of backends: one line for each.

A new kind is a module here with its `KindSpec`, a line in this table, and the folder
`workers/backends/<name>/`, in which backend.py has a function `build` (workers/backends/kinds.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.kinds.anthropic import ANTHROPIC
from shared.config.kinds.completions import COMPLETIONS
from shared.config.kinds.demo import DEMO
from shared.config.kinds.demo_transcriber import DEMO_TRANSCRIBER
from shared.config.kinds.gemini import GEMINI
from shared.config.kinds.grpc import GRPC
from shared.config.kinds.local import LOCAL
from shared.config.kinds.ollama import OLLAMA
from shared.config.kinds.openai import OPENAI
from shared.config.kinds.plugin import PLUGIN
from shared.config.kinds.responses import RESPONSES
from shared.config.kinds.route import ROUTE
from shared.config.kinds.spec import KindSpec
from shared.config.kinds.websocket import WEBSOCKET
from shared.config.plugin_classes import BACKEND_GROUP, plugin_class, plugin_names

KINDS: Mapping[str, KindSpec] = {
    spec.name: spec
    for spec in (
        OPENAI,
        COMPLETIONS,
        OLLAMA,
        WEBSOCKET,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        GRPC,
        LOCAL,
        DEMO,
        DEMO_TRANSCRIBER,
    )
}  # fmt: skip


def kind_of(backend: str) -> KindSpec | None:
    """Return the kind that `Model.backend` names; None: no kind and no plug-in."""
    if backend == ROUTE.name:
        return ROUTE
    return KINDS.get(backend) or (PLUGIN if plugin_class(BACKEND_GROUP, backend) else None)


def kind_names() -> list[str]:
    """Return the names that the member `backend` can have, without those of classes."""
    return sorted({*KINDS, *plugin_names(BACKEND_GROUP)})
