"""The kinds that the common suite of backends tries: one line for each."""

from __future__ import annotations

from tests.support.kinds.anthropic import ANTHROPIC
from tests.support.kinds.completions import COMPLETIONS
from tests.support.kinds.gemini import GEMINI
from tests.support.kinds.grpc import GRPC, KSERVE
from tests.support.kinds.kind import TriedKind
from tests.support.kinds.ollama import OLLAMA
from tests.support.kinds.openai import OPENAI
from tests.support.kinds.responses import RESPONSES
from tests.support.kinds.websocket import WEBSOCKET

TRIED: dict[str, TriedKind] = {
    kind.title: kind
    for kind in (
        OPENAI,
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        COMPLETIONS,
        OLLAMA,
        WEBSOCKET,
        GRPC,
        KSERVE,
    )
}  # fmt: skip
