"""What OpenAI's SDK hears of a response's events, and what must hold of them whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.responses import ResponseStreamEvent

TERMINAL = ("response.completed", "response.incomplete", "response.failed")


@dataclass
class ResponseEvents:
    """The events of one response, perhaps put together from several connections."""

    events: list[ResponseStreamEvent] = field(default_factory=list)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    @property
    def numbers(self) -> list[int]:
        return [event.sequence_number for event in self.events]

    @property
    def id(self) -> str:
        first: Any = self.events[0]
        found: str = first.response.id
        return found

    @property
    def final(self) -> Any:
        """The response of the last event, which must be a terminal one."""
        last: Any = self.events[-1]
        assert last.type in TERMINAL, last.type
        return last.response

    @property
    def texts(self) -> dict[int, str]:
        """The deltas of each message, joined, by `output_index`."""
        found: dict[int, str] = {}
        for event in self.events:
            if event.type == "response.output_text.delta":
                found[event.output_index] = found.get(event.output_index, "") + event.delta
        return found

    @property
    def text(self) -> str:
        """The text of the message that stands in the end."""
        return self.texts[max(self.texts)] if self.texts else ""

    def check(self) -> None:
        """From 0 without a hole, each item added once and done once, the end last and once."""
        assert self.numbers == list(range(len(self.events)))
        assert self.types[:2] == ["response.created", "response.queued"]
        assert [kind in TERMINAL for kind in self.types].index(True) == len(self.types) - 1
        added = [e.output_index for e in self.events if e.type == "response.output_item.added"]
        done = [e.output_index for e in self.events if e.type == "response.output_item.done"]
        assert added == list(range(len(added)))
        assert sorted(done) == added
        text = "".join(
            part.text for item in self.final.output if item.type == "message"
            for part in item.content
        )  # fmt: skip
        assert text == self.final.output_text


async def hear(
    stream: openai.AsyncStream[ResponseStreamEvent],
    upto: int = -1,
    told: ResponseEvents | None = None,
) -> ResponseEvents:
    """Hear a stream to its end, or up to a number, and then hang up."""
    told = told or ResponseEvents()
    async for event in stream:
        told.events.append(event)
        if event.sequence_number == upto:
            await stream.close()
            break
    return told
