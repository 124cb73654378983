"""The kind `anthropic`: servers with Anthropic's Messages."""

from __future__ import annotations

from collections.abc import Mapping

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from workers.backends.anthropic.reader import MessagesReader
from workers.backends.anthropic.request import encode_body
from workers.backends.contract import Backend
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.posting import PostingBackend
from workers.backends.reading.failure import refusal
from workers.backends.route import find_route


class MessagesWire:
    """Anthropic's Messages: see `Wire`."""

    path = "/messages"
    query = ""
    accept = "text/event-stream"
    headers: Mapping[str, str] = {}

    def __init__(self, model: Model, settings: Settings) -> None:
        self._model = model
        self._settings = settings

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix, form)

    def reader(self, seed: str) -> MessagesReader:
        return MessagesReader(
            line_bytes_max=self._settings.upstream_line_bytes_max,
            body_bytes_max=self._settings.answer_bytes_max,
            seed=seed,
        )

    def refusal(
        self, status: int, body: bytes, *, retry_after: str | None, now_s: float
    ) -> BackendError:
        return refusal(status, body, retry_after=retry_after, now_s=now_s)


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    route = find_route(model, environ)
    return PostingBackend(model, settings, http, route=route, wire=MessagesWire(model, settings))
