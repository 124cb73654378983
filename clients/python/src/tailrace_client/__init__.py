"""Resumable token streams of a Tailrace server."""

from tailrace_client.async_answer import AsyncAnswer
from tailrace_client.async_batch import AsyncBatch
from tailrace_client.async_client import AsyncTailrace
from tailrace_client.async_producer import AsyncProducer
from tailrace_client.batches import BatchLine
from tailrace_client.errors import ForeignAnswer, TailraceError
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
from tailrace_client.produce import produce
from tailrace_client.reading import Result
from tailrace_client.sync_answer import Answer
from tailrace_client.sync_batch import Batch
from tailrace_client.sync_client import Tailrace
from tailrace_client.sync_producer import Producer

__all__ = [
    "Answer",
    "AsyncAnswer",
    "AsyncBatch",
    "AsyncProducer",
    "AsyncTailrace",
    "Batch",
    "BatchLine",
    "DataEvent",
    "EndEvent",
    "Event",
    "ExtraEvent",
    "FileEvent",
    "ForeignAnswer",
    "Producer",
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
    "produce",
]
