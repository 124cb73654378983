"""Measures what stages cost for each token, in this process: from the model's events to the log.

A model gives one token in each read, and the events go through the stages into an outbox, as in a
worker. The base is the same way without stages. No word of the filter is in the text, so nothing is
masked; the end of a piece is held back where a word may begin. For every letter a word begins with
it, so the last letter of nearly every piece is held back: the worst case of a list of words. The
text repeats its pieces, as the vocabulary of a model does; the rows "new pieces" have no piece
twice.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from bench.support.setup import Setup
from bench.support.table import US, Comparison, Row
from shared.config.models import Model, parse_models
from shared.config.settings import Settings
from shared.log.events import Start, Token, encode
from shared.log.ids import EventId
from shared.log.records import Begun, parse_meta
from shared.log.request import Request
from workers.backends.contract import BackendItem, Finish
from workers.backends.demo import text as demo_text
from workers.stages import Stages
from workers.stages.contract import Services
from workers.stages.pipeline import Pipeline
from workers.takeover.answer import Asked, read_answer
from workers.takeover.continuation import AttemptPlan
from workers.takeover.verdicts import Form
from workers.writing.outbox import Outbox

TOKENS, TOKENS_QUICK = 50_000, 200
WORDS = 100
BASE = "no stages"
WORD_LIST, WHOLE_WORDS = f"filter of {WORDS} words", f"filter of {WORDS} whole words"
PATTERNS, LIMITS = "filter of 2 patterns", "limits"
GOAL_US = 1.0
KINDS: dict[str, list[dict[str, Any]]] = {
    BASE: [],
    WORD_LIST: [{"stage": "filter"}],
    WHOLE_WORDS: [{"stage": "filter", "whole_words": True}],
    PATTERNS: [{"stage": "filter", "patterns": [r"\b\d{4}-\d{4}\b", r"[a-z]+@[a-z]+\.com"]}],
    LIMITS: [{"stage": "limits", "max_tokens": 10_000_000, "max_characters": 100_000_000}],
    "audit and usage": [{"stage": "audit"}, {"stage": "usage", "output_price": 1.0}],
}
REQUEST = Request([{"role": "user", "content": "hi"}])
START = EventId(1, 1), encode(Start(1, "m"))


async def run(setup: Setup) -> list[Row]:
    """Run the benchmark; return its rows."""
    tokens = TOKENS_QUICK if setup.is_quick else TOKENS
    work = "stages of a model: added to each token where nothing matches"
    times = Comparison(work, "µs", goals=dict.fromkeys((WORD_LIST, WHOLE_WORDS, LIMITS), GOAL_US))
    pieces, new = _pieces(tokens), _new_pieces(tokens)
    models = {who: _model(tables, pieces) for who, tables in KINDS.items()}
    for _ in setup.rounds():
        await setup.quiet()
        base = 0.0
        for who, model in models.items():
            took = await _took_us(model, pieces)
            base = took if who == BASE else base
            times.add(who, took - (0.0 if who == BASE else base))
        base = await _took_us(models[BASE], new)
        for who in (WORD_LIST, PATTERNS):
            times.add(f"{who}, new pieces", await _took_us(models[who], new) - base)
    return times.rows()


def _new_pieces(count: int) -> Sequence[Token]:
    """Return pieces of which none comes twice."""
    drawn = random.Random("stages")
    words = ("".join(drawn.choices("etaoinshrdlu", k=4)) for _ in range(count))
    return [Token(f" {word}{n:x}") for n, word in enumerate(words)]


def _pieces(count: int) -> Sequence[Token]:
    return [Token(piece) for piece in list(demo_text.answer("stages", "bench", count))]


def _model(tables: list[dict[str, Any]], pieces: Sequence[Token]) -> Model:
    """Return a model with these stages. The words are like those of the text, but none is in it."""
    text = "".join(token.text for token in pieces[:20_000]).lower()
    known = sorted({word for word in text.split() if word.isalpha() and len(word) > 4})
    made = [f"{one[:3]}{other[2:]}" for one in known for other in reversed(known)]
    words = [word for word in dict.fromkeys(made) if word not in text]
    words = words[:: len(words) // WORDS]  # of all first letters
    filled = [
        table | {"words": words[:WORDS]}
        if table["stage"] == "filter" and "patterns" not in table
        else table
        for table in tables
    ]
    found = {"models": {"m": {"backend": "demo", "stages": filled}}}
    return parse_models(found, "models.toml")["m"]


class _Backend:
    """One token in each read."""

    can_continue = False
    counts_whole = False

    def __init__(self, pieces: Sequence[Token]) -> None:
        self._pieces = pieces

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str
    ) -> AsyncGenerator[list[BackendItem], None]:
        for piece in self._pieces:
            yield [piece]
        yield [Finish("stop")]

    async def aclose(self) -> None:
        """Do nothing."""


def _stages(model: Model) -> Pipeline | None:
    fields = {b"status": b"running", b"owner": b"a", b"model": b"m", b"created": b"1"}
    begun = Begun(START, 0, fields, parse_meta("gen_00000001", fields))
    services = Services(Settings(), None)  # type: ignore[arg-type]
    return Stages({"m": model}, services).open(model, begun, REQUEST, [START])


async def _took_us(model: Model, pieces: Sequence[Token]) -> float:
    """Return the CPU time for each token, µs."""
    outbox = Outbox("gen_00000001", "t", found=[], start=START, fields={}, now_s=0.0)
    asked = Asked(
        backend=_Backend(pieces), request=REQUEST, given=0, plan=AttemptPlan("", False),
        form=Form("", is_verified=False), seed="gen_00000001", late=lambda items: None,
        stages=_stages(model),
    )  # fmt: skip
    began_s = time.thread_time()
    async with aclosing(read_answer(asked)) as stream:
        async for items in stream:
            for item in items:
                if not isinstance(item, Finish):
                    outbox.push(item)
    return (time.thread_time() - began_s) * US / len(pieces)
