"""The kind `completions`: servers that continue a raw text."""

from __future__ import annotations

from functools import partial

from shared.log.request import Request
from workers.backends.completions.reader import CompletionsReader
from workers.backends.completions.request import encode_body
from workers.backends.posting import Wire, build_posting
from workers.backends.reading.failure import Address, refusal

ADDRESS = Address("completions", "most servers want it to end with /v1")


class CompletionsWire(Wire):
    """`/v1/completions`: see `Wire`."""

    path = "/completions"
    refusal = staticmethod(partial(refusal, address=ADDRESS))

    def encode(self, request: Request, prefix: str, form: str) -> bytes:
        return encode_body(self._model, request, prefix)

    def reader(self, seed: str) -> CompletionsReader:
        return CompletionsReader(**self.bounds, seed=seed)


build = partial(build_posting, CompletionsWire)
