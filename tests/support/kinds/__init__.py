"""The kinds that the common suite of backends tries: one line for each."""

from __future__ import annotations

from tests.support.kinds.anthropic import ANTHROPIC
from tests.support.kinds.gemini import GEMINI
from tests.support.kinds.kind import TriedKind
from tests.support.kinds.openai import OPENAI
from tests.support.kinds.responses import RESPONSES

TRIED: dict[str, TriedKind] = {
    kind.name: kind
    for kind in (
        OPENAI,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
    )
}  # fmt: skip
