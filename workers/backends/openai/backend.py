"""The kind `openai`: servers with OpenAI's chat completions."""

from __future__ import annotations

from functools import partial

from shared.log.request import Request
from workers.backends.openai.reader import ChatReader
from workers.backends.openai.request import encode_body
from workers.backends.posting import Wire, build_posting


class ChatWire(Wire):
    """Chat completions: see `Wire`."""

    path = "/chat/completions"

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix, form)

    def reader(self, seed: str) -> ChatReader:
        return ChatReader(**self.bounds, seed=seed)


build = partial(build_posting, ChatWire)
