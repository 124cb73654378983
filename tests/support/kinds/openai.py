"""The kind `openai` in the common suite."""

from __future__ import annotations

from typing import Any

from shared.config.settings import Settings
from tests.support.kinds.kind import TriedKind
from tests.support.openai_streams import ALL
from tests.support.upstream import Upstream
from workers.backends.openai.reader import ChatReader


def pictures(body: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image_url":
                media_type, _, data = part["image_url"]["url"].partition(";base64,")
                found.append((media_type.removeprefix("data:"), data))
    return found


def reader(settings: Settings) -> ChatReader:
    return ChatReader(
        line_bytes_max=settings.upstream_line_bytes_max,
        body_bytes_max=settings.answer_bytes_max,
        seed="s",
    )


OPENAI = TriedKind(
    name="openai",
    serve=Upstream,
    can=frozenset(
        (
            *("reasoning", "tools", "pictures", "max_tokens", "stop", "params", "usage"),
            *("continuation", "status", "errors", "lines"),
        )
    ),
    pictures=pictures,
    reader=reader,
    streams=ALL,
)
