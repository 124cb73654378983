"""The kind `demo_transcriber`: a stand-in for a transcriber, for trying audio without a model."""

from __future__ import annotations

from shared.config.kinds.spec import KindSpec

DEMO_TRANSCRIBER = KindSpec(
    name="demo_transcriber", styles=("exact",), continues_always=True, takes_audio=True
)
