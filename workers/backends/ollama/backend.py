"""The kind `ollama`: Ollama's own interface, `/api/chat`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.request import Request
from workers.backends.contract import Backend
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.ollama.reader import ADDRESS, OllamaReader
from workers.backends.ollama.request import encode_body
from workers.backends.posting import PostingBackend
from workers.backends.reading.failure import refusal
from workers.backends.route import find_route


class OllamaWire:
    """`/api/chat`: see `Wire`."""

    path = "/api/chat"
    query = ""
    accept = "application/x-ndjson"
    headers: Mapping[str, str] = {}
    refusal = staticmethod(partial(refusal, address=ADDRESS))

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix)

    def reader(self, seed: str) -> OllamaReader:
        return OllamaReader(line_bytes_max=self._settings.upstream_line_bytes_max, seed=seed)


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    route = find_route(model, environ)
    return PostingBackend(model, settings, http, route=route, wire=OllamaWire(model, settings))
