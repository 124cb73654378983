"""The stand-in transcriber as a backend: text leaves while the audio arrives.

A takeover reads the audio from its start, makes the same text, and leaves out what readers have.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import cast

from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.events import Token, Usage
from shared.log.request import Request
from workers.backends.contract import AudioSource, Backend, BackendItem, Finish
from workers.backends.demo_transcriber.transcript import Transcript
from workers.backends.http.upstream_http import UpstreamHttp


class DemoTranscriber:
    """See `Backend` and `AudioBackend`."""

    counts_whole = True

    def __init__(self, model: Model) -> None:
        self.can_continue = model.may_continue

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Refuse a request without audio.

        Raises:
            BackendError: always.
        """
        message = "this model transcribes: start the generation with audio"
        raise BackendError("upstream_refused", message, retryable=False)
        yield []  # makes this function a generator

    async def transcribe(
        self, request: Request, audio: AudioSource, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `AudioBackend.transcribe`."""
        transcript, skipped, words = Transcript(audio.format), _Skipped(prefix), 0
        yield []
        # Closed at once when this generator is, so that no reading of the input is left.
        reading = cast(AsyncGenerator[bytes, None], aiter(audio))
        async with aclosing(reading):
            async for data in reading:
                pieces = list(transcript.feed(data))
                words += len(pieces)
                if items := skipped.rest_of(pieces):
                    yield items
        pieces = list(transcript.finish())
        words += len(pieces)
        windows = transcript.windows
        usage = Usage(windows, words, windows + words)
        yield [*skipped.rest_of(pieces), usage, Finish("stop")]

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


class _Skipped:
    """Leaves out the pieces that an earlier attempt has written."""

    def __init__(self, prefix: str) -> None:
        self._left = prefix

    def rest_of(self, pieces: list[str]) -> list[BackendItem]:
        return list(self._rest(pieces))

    def _rest(self, pieces: list[str]) -> Iterator[BackendItem]:
        for piece in pieces:
            there = self._left[: len(piece)]
            if not piece.startswith(there):
                message = "the stand-in cannot continue a text that is not its own"
                raise BackendError("upstream_refused", message, retryable=False)
            self._left = self._left[len(there) :]
            if rest := piece[len(there) :]:
                yield Token(rest)


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    return DemoTranscriber(model)
