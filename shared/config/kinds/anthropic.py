"""The kind `anthropic`: servers with Anthropic's Messages."""

from __future__ import annotations

from shared.config.kinds.spec import HTTP, KindSpec

# A last turn of the assistant is continued; newer models refuse it.
ANTHROPIC = KindSpec(
    name="anthropic",
    schemes=HTTP,
    has_rules=True,
    header="x-api-key",
    header_prefix="",
    headers={"anthropic-version": "2023-06-01"},  # of the interface; the vendor demands it
    styles=("trailing",),
    models_path="/models",
    models_query="limit=1000",
)
