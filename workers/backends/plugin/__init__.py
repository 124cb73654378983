"""For authors of plug-ins: the class to derive from, and the events that an answer may have.

docs/backends.md shows a plug-in with its test.
"""

from __future__ import annotations

from shared.errors import BackendError
from shared.log.events import Data, Extra, File, Progress, Reasoning, Token, ToolCall, Usage
from workers.backends.contract import Finish
from workers.backends.plugin.api import Backend, PluginRequest
from workers.backends.plugin.audio import PluginAudio
from workers.backends.plugin.trial import answer_of, transcript_of

__all__ = [
    "Backend", "BackendError", "Data", "Extra", "File", "Finish", "PluginAudio", "PluginRequest",
    "Progress", "Reasoning", "Token", "ToolCall", "Usage", "answer_of", "transcript_of",
]  # fmt: skip
