"""The answers of the benches' model server: every process can say what each token is.

Token `i` of answer `n` has both numbers in it, so a loss, a repeat, a wrong order or somebody
else's text shows in the text alone. About five bytes, as a model's tokens are.
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
    """What is asked of the model server, as the prompt says it.

    Attributes:
        per_s: tokens a second; 0: as fast as the connection takes them.
        first_s: silence before the first token.
        phase_s: how much later than `first_s` this one begins, so that many do not tick together.
    """

    number: int
    tokens: int
    per_s: float = 0.0
    first_s: float = 0.0
    phase_s: float = 0.0

    def token(self, index: int) -> str:
        return f" {self.number % 256:x}.{index:x}"

    def pieces(self) -> list[str]:
        return [self.token(index) for index in range(self.tokens)]

    def body(self) -> dict[str, Any]:
        """The request for it, natively."""
        return {"model": MODEL, "prompt": json.dumps(asdict(self))}

    def chat_body(self) -> dict[str, Any]:
        """The request for it, as the model server reads it."""
        message = {"role": "user", "content": json.dumps(asdict(self))}
        return {"model": MODEL, "stream": True, "messages": [message]}

    @classmethod
    def of(cls, chat_body: dict[str, Any]) -> Answer:
        return cls(**json.loads(chat_body["messages"][-1]["content"]))


def new_answers(
    count: int, *, tokens: int, per_s: float = 0.0, first_s: float = 0.0
) -> list[Answer]:
    """Answers that were never asked for before, their beginnings spread over one gap."""
    gap_s = 1 / per_s if per_s else 0.0
    return [Answer(next(_numbers), tokens, per_s, first_s, gap_s * n / count) for n in range(count)]
