"""The kind `gemini`: servers with Gemini's `streamGenerateContent`."""

from __future__ import annotations

from shared.config.kinds.spec import HTTP, KindSpec

GEMINI = KindSpec(
    name="gemini",
    schemes=HTTP,
    has_rules=True,
    header="x-goog-api-key",
    header_prefix="",
    styles=("trailing",),
    models_path="/models",
    models_query="pageSize=1000",
)
