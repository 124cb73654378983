"""The kind `responses`: servers with OpenAI's Responses."""

from __future__ import annotations

from shared.config.kinds.spec import HTTP, KindSpec

# No form continues a partial answer: a worker goes on with the response that the server keeps.
RESPONSES = KindSpec(name="responses", schemes=HTTP, has_rules=True, models_path="/models")
