"""Prompts for the demo model, and the exact text that its answer must have.

The only part of the test support that asks the system under test anything: the demo backend's
sequence is a function of prompt, seed and controls, whoever generates which part of it.
"""

from __future__ import annotations

from typing import Any

from shared.log.request import Request
from workers.backends.demo import backend as demo


def demo_body(
    tokens: int, per_s: float, prompt: str = "tell me", *, model: str = "demo", **controls: Any
) -> dict[str, Any]:
    """The body of a POST: `tokens` at `per_s` a second, the first at once; 0: all at once."""
    told = {"tokens": tokens, "tokens_per_s": per_s, "first_token_s": 0, **controls}
    return {"model": model, "prompt": prompt, "params": {"demo": told}}


def expected_text(body: dict[str, Any], generation_id: str) -> str:
    """What every reader must have in the end."""
    messages = body.get("messages") or [{"role": "user", "content": body["prompt"]}]
    request = Request(messages=messages, params=body.get("params", {}))
    return demo.expected_text(request, generation_id)
