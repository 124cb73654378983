"""Parses the stream of `/v1/completions`: chunks whose choices have `text` instead of `delta`.

All else is as in the chat stream (workers/backends/openai/reader.py), with its dialects. Pure.
"""

from __future__ import annotations

from typing import Any

from workers.backends.openai.reader import ChatReader
from workers.backends.reading.chunk_template import ChunkTemplate, learn


class CompletionsReader(ChatReader):
    """Reads one answer: see `ChatReader`."""

    def _decode(self, payload: bytes) -> dict[str, Any]:
        chunk = super()._decode(payload)
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and isinstance(choice.get("text"), str):
                choice["delta"] = {"content": choice.pop("text")}
        return chunk

    def _learn(self, payload: bytes, text: str) -> ChunkTemplate | None:
        return learn(payload, text, b"text")
