"""Computes the demo's text of one generation anew: `python -m cli.faults.known_text GENERATION-ID`.

The demo's answer is a function of its request, so a page can compare what it has received with a
text that no worker, log or node has touched. Prints {"characters", "sha256"} of the UTF-8 text; the
hash is null for a model that is not the demo. A process of its own, because the supervisor must not
import `workers`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import TailraceError
from shared.log.request import decode_request
from shared.log.store import Store
from shared.redis.connections import connect
from workers.backends.demo.backend import expected_text


async def known_text(settings: Settings, generation_id: str) -> dict[str, Any]:
    """Return the number of characters and the SHA-256 of the text that the demo must give."""
    redis = connect(settings)
    try:
        store = Store(redis, settings)
        meta = await store.meta(generation_id)
        meta = await store.with_request(meta) if meta is not None else None
    finally:
        await redis.aclose()
    unknown = {"characters": None, "sha256": None}
    if meta is None or not meta.request:
        return unknown
    model = load_models(settings.models, settings.models_skip).tables.get(meta.model)
    if model is None or model.kind.name != "demo":
        return unknown
    text = expected_text(decode_request(meta.request), generation_id, model.options)
    return {"characters": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}


def main() -> int:
    try:
        found = asyncio.run(known_text(Settings.from_env(), sys.argv[1]))
    except TailraceError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
