"""For authors of stages: the class to derive from, and the events that pass.

docs/stages.md shows a stage with its test.
"""

from __future__ import annotations

from shared.errors import BackendError
from shared.log.events import (
    Data,
    Extra,
    File,
    Progress,
    Reasoning,
    Reset,
    Token,
    ToolCall,
    Usage,
)
from workers.backends.contract import Finish
from workers.stages.plugin.api import Stage
from workers.stages.plugin.trial import passed

__all__ = [
    "BackendError", "Data", "Extra", "File", "Finish", "Progress", "Reasoning", "Reset", "Stage",
    "Token", "ToolCall", "Usage", "passed",
]  # fmt: skip
