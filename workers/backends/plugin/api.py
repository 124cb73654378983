"""The class from which a plug-in derives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from shared.config.models import Model
from shared.log.events import AnyEvent
from workers.backends.contract import Finish
from workers.backends.plugin.audio import PluginAudio

Piece = str | AnyEvent | Finish


@dataclass(frozen=True, slots=True)
class PluginRequest:
    """One request for an answer.

    Attributes:
        messages: each with `role` and `content`, oldest first.
        params: the other members of the client's body: max_tokens, temperature, stop, …
        prefix: the answer so far, without the white space at its end; only given if the plug-in
            `can_continue`. The answer then begins behind it.
        seed: the id of the generation; the same in every attempt.
        audio: the audio input of the generation, to iterate over its bytes; None: it has none.
    """

    messages: list[dict[str, Any]]
    params: dict[str, Any]
    prefix: str = ""
    seed: str = ""
    audio: PluginAudio | None = None

    @property
    def prompt(self) -> str:
        """The last text of the user."""
        for message in reversed(self.messages):
            if message.get("role") == "user":
                content = message.get("content")
                parts = content if isinstance(content, list) else [{"text": content}]
                texts = [part.get("text") for part in parts if isinstance(part, dict)]
                return "\n".join(text for text in texts if isinstance(text, str))
        return ""


class Backend(ABC):
    """One model of the models file. A worker makes one object for each model, at its start.

    Every answer runs in a thread of its own, with an event loop of its own. So `answer` may block,
    and several answers of one object run at the same time. Objects that belong to an event loop,
    for example the session of an HTTP client, have to be made inside `answer`.

    Attributes:
        model: its table in the models file: `base_url`, `api_key_env`, `options` and so on.
        can_continue: `answer` obeys `PluginRequest.prefix`.
        counts_whole: `Usage` of a continuation is of the whole answer.
    """

    can_continue = False
    counts_whole = False

    def __init__(self, model: Model) -> None:
        self.model = model

    @abstractmethod
    def answer(self, request: PluginRequest) -> AsyncIterator[Piece] | Iterator[Piece]:
        """Yield the answer: a text for each piece, or an event. Usually a generator.

        The answer is complete when the generator returns, or after `Finish`. When the answer is
        cancelled, an asynchronous generator is cancelled at its `await`, and another one is closed
        at its `yield`.

        Raises:
            BackendError: the attempt has failed; says whether another attempt can succeed. Any
                other exception fails the attempt, too, and may succeed in the next one.
        """
