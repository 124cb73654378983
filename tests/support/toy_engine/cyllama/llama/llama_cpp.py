"""A toy in the place of cyllama's native module: the parts that workers/local_model/engine.py uses.

The model says words that depend on every token so far, so another division of the same text into
tokens gives another continuation, as with a real model. A prompt with these words does more:

    crash       the process dies of SIGSEGV at the third token
    stand still the computation ends only when it is told to stop
    be quiet    the answer ends at once
    say 1000    the answer has 1,000 tokens; without it, 12

`python -m tests.models` runs the same program on the real module with a real model.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Sequence
from random import Random
from typing import Any

# Pieces of words: "bananas" can be divided in several ways.
WORDS = [
    " ba",
    "nanas",
    "na",
    "nas",
    " bananas",
    " or",
    "anges",
    " oranges",
    ".",
    "\n",
    " 你",
    "好 🍊",
]
MARKS = ["<|im_start|>", "<|im_end|>"]
START, END = 0, 1
FIRST_BYTE = len(MARKS)
FIRST_WORD = FIRST_BYTE + 256


def _name_of_byte(byte: int) -> str:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


NAMES = [
    *MARKS,
    *map(_name_of_byte, range(256)),
    *("".join(map(_name_of_byte, word.encode())) for word in WORDS),
]


class LlamaVocab:
    vocab_type = 2
    n_vocab = len(NAMES)

    def get_text(self, token: int) -> str:
        return NAMES[token]

    def is_control(self, token: int) -> bool:
        return token < FIRST_BYTE

    def is_eog(self, token: int) -> bool:
        return token == END

    def get_add_bos(self) -> bool:
        return False

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        ids: list[int] = []
        while text:
            marks = [mark for mark in MARKS if parse_special and text.startswith(mark)]
            words = [word for word in WORDS if text.startswith(word)]
            if marks:
                ids.append(MARKS.index(marks[0]))
                text = text[len(marks[0]) :]
            elif words:
                longest = max(words, key=len)
                ids.append(FIRST_WORD + WORDS.index(longest))
                text = text[len(longest) :]
            else:
                ids += [FIRST_BYTE + byte for byte in text[0].encode()]
                text = text[1:]
        return ids


class LlamaModelParams:
    pass


class LlamaContextParams:
    n_ctx = n_batch = n_threads = n_threads_batch = 0


class LlamaSamplerChainParams:
    pass


class LlamaChatMessage:
    def __init__(self, role: str, content: str) -> None:
        self.role, self.content = role, content


class LlamaModel:
    n_ctx_train = 8_192

    def __init__(self, path: str, params: LlamaModelParams) -> None:
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError(f"Failed to load model from file: {path}")

    def get_vocab(self) -> LlamaVocab:
        return LlamaVocab()

    def get_default_chat_template(self) -> str:
        return "chatml"

    def chat_apply_template(
        self, template: str, chat: Sequence[LlamaChatMessage], opens: bool
    ) -> str:
        turns = [f"<|im_start|>{one.role}\n{one.content}<|im_end|>\n" for one in chat]
        return "".join(turns) + "<|im_start|>assistant\n"


class LlamaContext:
    def __init__(self, model: LlamaModel, params: LlamaContextParams) -> None:
        self.n_ctx = params.n_ctx
        self.n_batch = params.n_batch
        self.cancel = False
        self.ids: list[int] = []

    def install_cancel_callback(self) -> None:
        pass

    def kv_cache_clear(self) -> None:
        self.ids.clear()

    def decode(self, batch: tuple[list[int], int]) -> None:
        ids, position = batch
        assert len(ids) <= self.n_batch and position == len(self.ids), "GGML_ASSERT"
        self.ids += ids
        while "stand still" in self.prompt:
            if self.cancel:
                raise InterruptedError
            time.sleep(0.005)  # native code that computes
        if "crash" in self.prompt and len(self.said) >= 3:
            os.kill(os.getpid(), signal.SIGSEGV)

    @property
    def prompt(self) -> str:
        return _text(self.ids[: self._begin])

    @property
    def said(self) -> list[int]:
        return self.ids[self._begin :]

    @property
    def _begin(self) -> int:
        """Behind the last mark and the line that opens the turn of the assistant."""
        return len(self.ids) - self.ids[::-1].index(START) + len("assistant") + 1


def _text(ids: Sequence[int]) -> str:
    raw = bytes(token - FIRST_BYTE for token in ids if FIRST_BYTE <= token < FIRST_WORD)
    return raw.decode(errors="replace")


def llama_batch_get_one(ids: list[int], position: int) -> tuple[list[int], int]:
    return list(ids), position


class LlamaSampler:
    def __init__(self, params: LlamaSamplerChainParams) -> None:
        self._allowed: list[int] = []
        self._random: Random | None = None

    def add_greedy(self) -> None:
        pass

    def add_dist(self, seed: int) -> None:
        self._random = Random(seed)

    def add_logit_bias(self, size: int, biases: list[tuple[int, float]]) -> None:
        self._allowed = [token for token, _ in biases]

    def add_top_p(self, share: float, least: int) -> None:
        pass

    add_min_p = add_top_p

    def add_temp(self, temperature: float) -> None:
        pass

    def sample(self, context: LlamaContext, at: int) -> int:
        said = context.said
        drawn = self._random.randrange(2**32) if self._random else 0
        count = 1_000 if "say 1000" in context.prompt else 12
        if not self._allowed and ("be quiet" in context.prompt or len(said) >= count):
            return END
        choices = self._allowed or range(FIRST_WORD, len(NAMES))
        # A number that depends on each token so far, in its order.
        return choices[(zlib.crc32(repr((context.ids, drawn)).encode())) % len(choices)]


def disable_logging() -> None:
    pass


def ggml_backend_load_all() -> Any:
    pass
