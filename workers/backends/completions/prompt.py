"""Renders the messages of a chat as one text, which a server continues. Pure.

The texts of the messages are taken as they are: a marker of the template in a text works as a
marker. Markers are the model's own language, and no escape exists for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.config.kinds.completions import PLACE, PromptTemplate
from workers.backends.reading.parts import refused, text_of

_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}


def render(messages: Sequence[Mapping[str, Any]], template: PromptTemplate, said: str = "") -> str:
    """Return the prompt.

    Args:
        said: the beginning of the answer, which stands behind the prompt.

    Raises:
        BackendError: `upstream_refused`: a message cannot be written as a text.
    """
    parts = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = _ROLES.get(str(message.get("role", "user")))
        if role is None or message.get("tool_calls"):
            raise refused(f"{where}: this model continues a text and calls no tools", "messages")
        content, _ = text_of(message.get("content"), where, _no_picture)
        if at == len(messages) - 1 and message.get("prefix") and role == "assistant":
            said = content + said  # the client has begun the answer
        else:
            before, _, behind = getattr(template, role).partition(PLACE)
            parts.append(f"{before}{content}{behind}")
    if template.answer:
        parts.append(template.answer)
    return template.separator.join(parts) + said


def _no_picture(url: str, where: str) -> str:
    raise refused(f"{where}: this model continues a text and takes no pictures", "messages")
