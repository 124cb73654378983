"""The kind `ollama`: Ollama's own interface, `/api/chat`."""

from __future__ import annotations

from shared.config.kinds.spec import HTTP, KindSpec

OLLAMA = KindSpec(
    name="ollama",
    schemes=HTTP,
    has_rules=True,
    # Ollama lacks a member such as `continue_final_message`; a template may leave the last turn
    # open.
    styles=("trailing",),
    models_path="/v1/models",  # the list in OpenAI's form
)
