"""The kind `openai`: any server with OpenAI's chat completions."""

from __future__ import annotations

from shared.config.kinds.spec import HTTP, KindSpec

# How a request asks for the rest of a partial answer; the servers differ.
CONTINUE_STYLES = ("continue_final_message", "prefix", "trailing")

OPENAI = KindSpec(
    name="openai",
    schemes=HTTP,
    has_rules=True,
    styles=CONTINUE_STYLES,
    models_path="/models",
)
