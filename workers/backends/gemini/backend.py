"""The kind `gemini`: servers with Gemini's `streamGenerateContent`."""

from __future__ import annotations

from functools import partial

from shared.log.request import Request
from workers.backends.gemini.reader import GenerateContentReader
from workers.backends.gemini.request import encode_body
from workers.backends.posting import Wire, build_posting


class GenerateContentWire(Wire):
    """Gemini's `streamGenerateContent`: see `Wire`."""

    query = "alt=sse"  # else the answer is one JSON array

    @property
    def path(self) -> str:
        """A name with `/` is a whole path, for example `tunedModels/…`."""
        name = self._model.upstream_name
        resource = name if "/" in name else f"models/{name}"
        return f"/{resource}:streamGenerateContent"

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix, form)

    def reader(self, seed: str) -> GenerateContentReader:
        return GenerateContentReader(**self.bounds, seed=seed)


build = partial(build_posting, GenerateContentWire)
