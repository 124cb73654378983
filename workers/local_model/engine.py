"""The program of one process that computes answers of a local model, one after another.

    python -m workers.local_model.engine '{"file": "model.gguf", "context_tokens": 4096, …}'

A process of its own, because the native code may crash, and because it computes without pause.
Standard input and output carry one JSON object per line:

    in    {"id", "turns", "prefix", "sampling"}   answer this; the answer before has ended
          {"stop": id}                            stop this answer, if it still runs
    out   {"ready": {"context_tokens"}}           the model is loaded
          {"failed": text}                        the model cannot be loaded; the process ends
          {"id", "began": true}                   the prompt was accepted
          {"id", "text"}                          a piece of the answer
          {"id", "refused": text, "too_long"}     the prompt cannot be answered
          {"id", "finish", "usage"}               the last line of an answer; `usage`: [prompt,
                                                  answer], in tokens, the answer with the prefix

The process ends when its input closes, so no answer is computed for a worker that has died.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

from workers.local_model.answer_text import AnswerText
from workers.local_model.prompt import Part, PromptRefused, Turn, render
from workers.local_model.sampling import Sampling
from workers.local_model.vocabulary import (
    KIND_BPE,
    KIND_SPM,
    Vocabulary,
    split_to_align,
    token_bytes,
)

BATCH_TOKENS = 256  # of the prompt in one call of the native code
PENALTY_TOKENS = 64  # the last tokens that a penalty looks at
ALLOWED_BIAS = 10_000.0  # lifts a token above all others


class Stopped(Exception):
    """The worker does not want the answer any more."""


class LocalModel:
    """A loaded model. Only `stop` may be called from another thread.

    Args:
        options: file, context_tokens, threads.

    Raises:
        OSError, ValueError, MemoryError: the file is no model that can be used.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        from cyllama.llama import llama_cpp as native

        self._native = native
        native.disable_logging()
        native.ggml_backend_load_all()
        self._model = native.LlamaModel(options["file"], native.LlamaModelParams())
        self._vocab = self._model.get_vocab()
        kind = self._vocab.vocab_type
        if kind not in (KIND_BPE, KIND_SPM):
            raise ValueError(f"its vocabulary is of a kind that is not supported ({kind})")
        self._vocabulary = Vocabulary(self._tokens(kind))
        params = native.LlamaContextParams()
        params.n_ctx = min(options["context_tokens"], self._model.n_ctx_train)
        params.n_batch = BATCH_TOKENS
        params.n_threads = params.n_threads_batch = options["threads"]
        self._context = native.LlamaContext(self._model, params)
        self._context.install_cancel_callback()
        self._lock = threading.Lock()
        self._running = self._stopped = 0

    @property
    def context_tokens(self) -> int:
        return int(self._context.n_ctx)

    def stop(self, number: int) -> None:
        """Stop an answer, also in the middle of its prompt."""
        with self._lock:
            self._stopped = max(self._stopped, number)
            if number == self._running:
                self._context.cancel = True

    def answer(self, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the lines of an answer, without its id.

        Raises:
            Stopped: by `stop`.
            PromptRefused: the prompt cannot be answered.
        """
        with self._lock:
            self._running = task["id"]
            self._context.cancel = False
        sampling = Sampling(*task["sampling"])
        turns: list[Turn] = [(role, text) for role, text in task["turns"]]
        prompt = self._tokens_of(render(turns, self._apply))
        said, rest = split_to_align(task["prefix"])
        ids = prompt + self._tokenize(said, is_marks=False)
        if len(ids) >= self.context_tokens:
            raise PromptTooLong(len(ids), self.context_tokens)
        self._context.kv_cache_clear()
        self._append(ids, 0)
        yield {"began": True}
        sampler = self._sampler(sampling)
        aligned, surplus = self._align(rest, sampler, len(ids))
        ids += aligned
        yield from self._go_on(sampling, sampler, ids, len(prompt), surplus)

    def _go_on(
        self, sampling: Sampling, sampler: Any, ids: list[int], prompt_tokens: int, surplus: bytes
    ) -> Iterator[dict[str, Any]]:
        """Yield the pieces behind `ids`, whose last token was just computed, and the end."""
        text = AnswerText(sampling.stops)
        if piece := text.feed(surplus):
            yield {"text": piece}
        finish = "length"
        while len(ids) < self.context_tokens:
            if sampling.max_tokens is not None and len(ids) - prompt_tokens >= sampling.max_tokens:
                break
            token = sampler.sample(self._context, -1)
            ids.append(token)
            if self._vocab.is_eog(token):
                finish = "stop"
                break
            if piece := text.feed(self._vocabulary.bytes_of.get(token, b"")):
                yield {"text": piece}
            if text.has_stopped:
                finish = "stop"
                break
            self._append([token], len(ids) - 1)
        if piece := text.finish():
            yield {"text": piece}
        yield {"finish": finish, "usage": [prompt_tokens, len(ids) - prompt_tokens]}

    def _align(self, rest: bytes, sampler: Any, position: int) -> tuple[list[int], bytes]:
        """Say `rest` again, token by token.

        The sampler draws the same numbers as when the answer was begun, so it draws the same
        tokens. Where it does not, for instance after an upgrade, the likeliest token is taken.

        Returns:
            the tokens, and the white space with which the last of them goes beyond `rest`.
        """
        aligned: list[int] = []
        while rest:
            token = sampler.sample(self._context, -1)
            raw = self._vocabulary.bytes_of.get(token, b"")
            goes_beyond = raw.startswith(rest) and not raw[len(rest) :].strip()
            if not raw or not (rest.startswith(raw) or goes_beyond):
                allowed = self._vocabulary.beginnings(rest)
                if not allowed:  # not a text of this model: leave it to the tokenizer
                    others = self._tokenize(rest.decode(errors="ignore"), is_marks=False)
                    self._append(others, position + len(aligned))
                    return aligned + others, b""
                token, goes_beyond = self._likeliest(allowed), False
                raw = self._vocabulary.bytes_of[token]
            self._append([token], position + len(aligned))
            aligned.append(token)
            if goes_beyond:
                return aligned, raw[len(rest) :]
            rest = rest[len(raw) :]
        return aligned, b""

    def _likeliest(self, allowed: Sequence[int]) -> int:
        sampler = self._native.LlamaSampler(self._native.LlamaSamplerChainParams())
        biases = [(token, ALLOWED_BIAS) for token in allowed]
        sampler.add_logit_bias(self._vocab.n_vocab, biases)
        sampler.add_greedy()
        return int(sampler.sample(self._context, -1))

    def _sampler(self, sampling: Sampling) -> Any:
        sampler = self._native.LlamaSampler(self._native.LlamaSamplerChainParams())
        penalties = (
            sampling.repeat_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )
        if penalties != (1.0, 0.0, 0.0):
            sampler.add_penalties(PENALTY_TOKENS, *penalties)
        if sampling.temperature == 0:
            sampler.add_greedy()
            return sampler
        if sampling.top_k:
            sampler.add_top_k(sampling.top_k)
        sampler.add_top_p(sampling.top_p, 1)
        sampler.add_min_p(sampling.min_p, 1)
        sampler.add_temp(sampling.temperature)
        sampler.add_dist(sampling.seed)
        return sampler

    def _append(self, ids: Sequence[int], position: int) -> None:
        """Compute tokens behind those before `position`."""
        if position + len(ids) > self.context_tokens:
            raise PromptTooLong(position + len(ids), self.context_tokens)
        for at in range(0, len(ids), BATCH_TOKENS):
            with self._lock:
                is_stopped = self._stopped >= self._running
            if is_stopped:
                raise Stopped
            some = list(ids[at : at + BATCH_TOKENS])
            try:
                self._context.decode(self._native.llama_batch_get_one(some, position + at))
            except InterruptedError as exc:
                raise Stopped from exc

    def _apply(self, turns: Sequence[Turn]) -> str:
        template = self._model.get_default_chat_template()
        if not template:
            raise PromptRefused("this model has no chat template: use a model for chats")
        messages = [self._native.LlamaChatMessage(role, text) for role, text in turns]
        return str(self._model.chat_apply_template(template, messages, True))

    def _tokens_of(self, parts: Sequence[Part]) -> list[int]:
        ids = [self._vocab.token_bos()] if self._vocab.get_add_bos() else []
        for text, is_marks in parts:
            tokens = self._tokenize(text, is_marks=is_marks)
            if ids and tokens and len(ids) == 1 and tokens[0] == ids[0]:
                tokens = tokens[1:]  # the template has the first token, too
            ids += tokens
        return ids

    def _tokenize(self, text: str, *, is_marks: bool) -> list[int]:
        return list(self._vocab.tokenize(text, add_special=False, parse_special=is_marks))

    def _tokens(self, kind: int) -> Iterator[tuple[int, bytes]]:
        for number in range(self._vocab.n_vocab):
            if not self._vocab.is_control(number):
                yield number, token_bytes(self._vocab.get_text(number), kind)


class PromptTooLong(PromptRefused):
    def __init__(self, tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"the prompt has {tokens} tokens, and this model takes {context_tokens} with the answer"
        )


def serve(options: dict[str, Any], lines: BinaryIO, out: BinaryIO) -> None:
    """Load the model and answer until the input closes."""

    def write(line: dict[str, Any]) -> None:
        out.write(json.dumps(line).encode() + b"\n")
        out.flush()

    try:
        model = LocalModel(options)
    except Exception as exc:  # whatever the native code raises: the worker shows the text
        write({"failed": f"{type(exc).__name__}: {exc}"})
        return
    write({"ready": {"context_tokens": model.context_tokens}})
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(lines, model, tasks), daemon=True).start()
    while True:
        task = tasks.get()
        number = task["id"]
        try:
            for line in model.answer(task):
                write({"id": number, **line})
        except Stopped:
            write({"id": number, "finish": "cancelled", "usage": [0, 0]})
        except PromptRefused as exc:
            is_too_long = isinstance(exc, PromptTooLong)
            write({"id": number, "refused": str(exc), "too_long": is_too_long})


def _read(lines: BinaryIO, model: LocalModel, tasks: queue.Queue[dict[str, Any]]) -> None:
    for line in lines:
        task = json.loads(line)
        if "stop" in task:
            model.stop(task["stop"])
        else:
            tasks.put(task)
    os._exit(0)  # the worker has gone; the native code may compute for a long time


def main() -> None:
    options = json.loads(sys.argv[1])
    # Native code may print. Only this module may write what the worker reads.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with suppress(ValueError, OSError):  # not every system has this limit
        limit = options["memory_mb"] * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        serve(options, sys.stdin.buffer, out)
    except BrokenPipeError:
        pass  # the worker has gone
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the end of the interpreter would wait for the thread that reads


if __name__ == "__main__":
    main()
