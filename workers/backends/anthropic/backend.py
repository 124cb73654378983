"""The kind `anthropic`: servers with Anthropic's Messages."""

from __future__ import annotations

from functools import partial

from shared.log.request import Request
from workers.backends.anthropic.reader import MessagesReader
from workers.backends.anthropic.request import encode_body
from workers.backends.posting import Wire, build_posting


class MessagesWire(Wire):
    """Anthropic's Messages: see `Wire`."""

    path = "/messages"

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix, form)

    def reader(self, seed: str) -> MessagesReader:
        return MessagesReader(**self.bounds, seed=seed)


build = partial(build_posting, MessagesWire)
