"""An answer of 40 tokens at 25 a second: time enough to break something while it streams."""

from __future__ import annotations

from tests.support.upstream import expected_text, script_of

PROMPT = "tell me"
SCRIPT = {"tokens": 40, "delay_s": 0.04}
_MODEL = """
[models.{name}]
backend = "openai"
base_url = "{url}"
on_takeover = "{name}"
"""


def text_of(prompt: str) -> str:
    """Return the text that a `tests.support.upstream.Upstream` answers to a prompt."""
    return expected_text(prompt, script_of({"messages": [], "upstream": SCRIPT}))


TEXT = text_of(PROMPT)


def models_by_takeover(url: str, *names: str) -> str:
    """Return a models file: each model is named after its `on_takeover`."""
    return "".join(_MODEL.format(name=name, url=url) for name in names)
