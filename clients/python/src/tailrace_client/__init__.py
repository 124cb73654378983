"""Resumable token streams of a Tailrace server."""

from tailrace_client.async_client import AsyncAnswer, AsyncTailrace
from tailrace_client.errors import TailraceError
from tailrace_client.events import (
    DataEvent,
    EndEvent,
    Event,
    ExtraEvent,
    FileEvent,
    ProgressEvent,
    ReasoningEvent,
    ResetEvent,
    StartEvent,
    TokenEvent,
    ToolCallEvent,
    UsageEvent,
)
from tailrace_client.reading import Result

__all__ = [
    "AsyncAnswer",
    "AsyncTailrace",
    "DataEvent",
    "EndEvent",
    "Event",
    "ExtraEvent",
    "FileEvent",
    "ProgressEvent",
    "ReasoningEvent",
    "ResetEvent",
    "Result",
    "StartEvent",
    "TailraceError",
    "TokenEvent",
    "ToolCallEvent",
    "UsageEvent",
]
