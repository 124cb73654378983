"""Batches as OpenAI's SDK drives them: an input of some lines, and their results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import openai
from openai.types import Batch

from tests.support.wait import until

CHAT = "/v1/chat/completions"
FINAL = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, body: dict[str, Any], url: str = CHAT, **members: Any) -> dict[str, Any]:
    """One line of an input file."""
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **members}


def chat_line(number: int, prompt: str = "", **members: Any) -> dict[str, Any]:
    """A line for the first model; its answer can be told from all others."""
    said = prompt or f"tell me of {number}"
    return line(f"c{number}", {"messages": [{"role": "user", "content": said}], **members})


def demo_line(number: int, tokens: int = 3, per_s: float = 0) -> dict[str, Any]:
    """A line for the demo model: 0 a second is all at once."""
    told = {"tokens": tokens, "tokens_per_s": per_s, "first_token_s": 0}
    return chat_line(number, demo=told)


def encoded(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def submit(
    client: openai.AsyncOpenAI,
    content: bytes,
    *,
    endpoint: Any = CHAT,
    window: str = "24h",
    **more: Any,
) -> Batch:
    """Upload an input and make a batch of it."""
    file = await client.files.create(file=("input.jsonl", content), purpose="batch")
    made: Any = window
    return await client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window=made, **more
    )


async def ended(client: openai.AsyncOpenAI, batch_id: str, deadline_s: float = 60.0) -> Batch:
    """Wait for the last status of a batch."""

    async def look() -> Batch | None:
        try:
            batch = await client.batches.retrieve(batch_id)
        except (openai.APIConnectionError, openai.APIStatusError) as exc:
            raise LookupError(f"{exc!r} {exc.__cause__!r}") from exc
        return batch if batch.status in FINAL else None

    batch = await until(look, deadline_s, f"the end of {batch_id}")
    assert batch is not None
    return batch


async def rows(client: openai.AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of an output or error file; none where there is no file."""
    if file_id is None:
        return []
    content = await client.files.content(file_id)
    text = content.read() if not hasattr(content, "aread") else await content.aread()
    return [json.loads(raw) for raw in text.splitlines()]


def by_id(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same by `custom_id`; one that stands there twice fails."""
    named = {row["custom_id"]: row for row in found}
    assert len(named) == len(found), "a line stands there twice"
    return named


def text_of(row: dict[str, Any]) -> str:
    """The answer of a chat completion's row."""
    content = row["response"]["body"]["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content
