"""The kind `ollama`: Ollama's own interface, `/api/chat`."""

from __future__ import annotations

from functools import partial

from shared.log.request import Request
from workers.backends.ollama.reader import ADDRESS, OllamaReader
from workers.backends.ollama.request import encode_body
from workers.backends.posting import Wire, build_posting
from workers.backends.reading.failure import refusal


class OllamaWire(Wire):
    """`/api/chat`: see `Wire`."""

    path = "/api/chat"
    accept = "application/x-ndjson"
    refusal = staticmethod(partial(refusal, address=ADDRESS))

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix)

    def reader(self, seed: str) -> OllamaReader:
        return OllamaReader(line_bytes_max=self._settings.upstream_line_bytes_max, seed=seed)


build = partial(build_posting, OllamaWire)
