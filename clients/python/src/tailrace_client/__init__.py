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
from tailrace_client.sync_client import Answer, Tailrace

__all__ = [
    "Answer",
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
    "Tailrace",
    "TailraceError",
    "TokenEvent",
    "ToolCallEvent",
    "UsageEvent",
]
