"""The answers of the benchmarks' model server. Every process can compute each token.

Token `i` of answer `n` contains both numbers, so the text alone shows a loss, a repeat, a wrong
order or a foreign answer. A token has about five bytes, as that of a model.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

_numbers = itertools.count(1)
MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Answer:
    """A request to the model server; the prompt holds it as JSON.

    Attributes:
        per_s: tokens per second; 0: as fast as the connection takes them.
        first_s: pause before the first token.
        phase_s: added to `first_s`, so that many answers do not send at the same moments.
        model: of the request.
    """

    number: int
    tokens: int
    per_s: float = 0.0
    first_s: float = 0.0
    phase_s: float = 0.0
    model: str = MODEL

    def token(self, index: int) -> str:
        """Return the text of one token."""
        return f" {self.number % 256:x}.{index:x}"

    def pieces(self) -> list[str]:
        """Return the texts of all tokens."""
        return [self.token(index) for index in range(self.tokens)]

    def body(self) -> dict[str, Any]:
        """Return the native request for this answer."""
        return {"model": self.model, "prompt": json.dumps(asdict(self))}

    def chat_body(self) -> dict[str, Any]:
        """Return the request that the model server reads."""
        message = {"role": "user", "content": json.dumps(asdict(self))}
        return {"model": self.model, "stream": True, "messages": [message]}


def new_answers(
    count: int, *, tokens: int, per_s: float = 0.0, first_s: float = 0.0, model: str = MODEL
) -> list[Answer]:
    """Return answers with new numbers. Their starts are spread over the gap between two tokens."""
    gap_s = 1 / per_s if per_s else 0.0
    return [
        Answer(next(_numbers), tokens, per_s, first_s, gap_s * n / count, model)
        for n in range(count)
    ]
