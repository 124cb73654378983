"""The kind `completions`: servers that continue a raw text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from shared.config.models import Model
from shared.config.settings import Settings
from shared.log.request import Request
from workers.backends.completions.reader import CompletionsReader
from workers.backends.completions.request import encode_body
from workers.backends.contract import Backend
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.posting import PostingBackend
from workers.backends.reading.failure import Address, refusal
from workers.backends.route import find_route

ADDRESS = Address("completions", "most servers want it to end with /v1")


class CompletionsWire:
    """`/v1/completions`: see `Wire`."""

    path = "/completions"
    query = ""
    accept = "text/event-stream"
    headers: Mapping[str, str] = {}
    refusal = staticmethod(partial(refusal, address=ADDRESS))

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix)

    def reader(self, seed: str) -> CompletionsReader:
        return CompletionsReader(
            line_bytes_max=self._settings.upstream_line_bytes_max,
            body_bytes_max=self._settings.answer_bytes_max,
            seed=seed,
        )


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    route = find_route(model, environ)
    return PostingBackend(model, settings, http, route=route, wire=CompletionsWire(model, settings))
