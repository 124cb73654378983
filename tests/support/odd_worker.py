"""A worker whose demo model misbehaves: `python -m tests.support.odd_worker worker`.

The prompt says how: `block` holds the event loop of the whole process once, for longer than any
lease in the tests. Everything else is the real worker.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from shared.models import Model
from shared.request import Request
from shared.settings import Settings
from workers import main as role
from workers.backends.contract import Item
from workers.backends.demo import DemoBackend

BLOCK_AT = 10  # tokens
BLOCK_S = 2.5


class OddBackend(DemoBackend):
    """The demo model, with a fault."""

    async def stream(
        self, request: Request, *, prefix: str, seed: str
    ) -> AsyncGenerator[list[Item], None]:
        seen = 0
        has_blocked = "block" not in str(request.messages)
        async for items in super().stream(request, prefix=prefix, seed=seed):
            yield items
            seen += len(items)
            if seen >= BLOCK_AT and not has_blocked:
                has_blocked = True
                time.sleep(BLOCK_S)  # noqa: ASYNC251  the fault itself


def build(
    models: Mapping[str, Model], settings: Settings, environ: Mapping[str, str]
) -> dict[str, Any]:
    return {name: OddBackend(model) for name, model in models.items()}


if __name__ == "__main__":
    role.build_backends = build  # type: ignore[assignment]
    sys.exit(role.serve(Settings.from_env()))
