"""The backend of plug-ins: keeps the time limits, checks the pieces, and reports mistakes.

A plug-in runs in threads (workers/backends/plugin/thread.py), because it may block: in the worker's
loop a call of 3 s would cost the leases of all generations. A process for each answer would also
survive code that never releases the interpreter lock. But a process took 87 ms to start, and a
thread with its loop 0.3 ms; and in processes a plug-in could not share a model or a cache between
its answers.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from importlib import import_module

from shared.config.models import Model
from shared.config.plugin_classes import BACKEND_GROUP, plugin_class
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError
from shared.log.request import Request
from shared.text.redaction import redact
from workers.backends import contract
from workers.backends.contract import BackendItem, Finish, SetUpFault
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.plugin.api import Backend, PluginRequest
from workers.backends.plugin.audio import PluginAudio
from workers.backends.plugin.items import check_piece
from workers.backends.plugin.thread import AnswerThread

STOP_S = 5.0  # for a plug-in that is asked to stop; again so long after it is interrupted
LEFT_MAX = 8  # threads of one model that do not stop; with more, no answer begins
WHERE_CHARACTERS_MAX = 300

log = logging.getLogger(__name__)


class PluginBackend:
    """One model whose answers a plug-in gives: see `contract.Backend`.

    Args:
        plugin: the object of the plug-in's class.
    """

    def __init__(self, model: Model, settings: Settings, plugin: Backend) -> None:
        self.can_continue = bool(plugin.can_continue) and model.may_continue
        self.counts_whole = bool(plugin.counts_whole)
        self._model = model
        self._settings = settings
        self._plugin = plugin
        self._left: list[AnswerThread] = []

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `contract.Backend.stream`."""
        asked = PluginRequest(request.messages, request.params, prefix, seed)
        async with aclosing(self._answer(asked, asyncio.Event())) as answer:
            async for items in answer:
                yield items

    async def transcribe(
        self,
        request: Request,
        audio: contract.AudioSource,
        *,
        prefix: str,
        seed: str,
        form: str = "",
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `contract.AudioBackend.transcribe`."""
        has_piece = asyncio.Event()
        heard = PluginAudio(audio, has_piece.set)
        asked = PluginRequest(request.messages, request.params, prefix, seed, heard)
        try:
            async with aclosing(self._answer(asked, has_piece)) as answer:
                async for items in answer:
                    yield items
        finally:
            await heard.close()

    async def _answer(
        self, asked: PluginRequest, has_piece: asyncio.Event
    ) -> AsyncGenerator[list[BackendItem], None]:
        """Yield the answer of the plug-in.

        Args:
            has_piece: set for each piece, and for each chunk of audio that the plug-in reads.
        """
        self._check_left()
        loop = asyncio.get_running_loop()
        limits = Limits(self._settings, loop.time())
        limits.sent(loop.time())
        name = f"plug-in {self._model.name}"
        thread = AnswerThread(lambda: self._plugin.answer(asked), has_piece.set, name)
        thread.start()
        try:
            yield []
            is_finished = False
            while not is_finished:
                try:
                    async with asyncio.timeout_at(limits.deadline):
                        await has_piece.wait()
                except TimeoutError as exc:
                    raise limits.exceeded() from exc
                has_piece.clear()
                has_ended = thread.has_ended
                items, failure = self._check(thread.take())
                is_finished = bool(items) and isinstance(items[-1], Finish)
                if failure is None and has_ended and not is_finished:
                    failure = self._failure(thread.error)
                    if failure is None:
                        items.append(Finish("stop"))
                        is_finished = True
                if items:
                    yield items
                    limits.has_content = True
                if failure is not None:
                    raise failure
                limits.read(loop.time(), is_finished=False)
                if asked.audio is not None:
                    limits.heard(loop.time())
        finally:
            self._stop(thread)

    async def aclose(self) -> None:
        """Do nothing: a thread ends with its answer."""

    def _check(self, pieces: list[object]) -> tuple[list[BackendItem], BackendError | None]:
        """Return the items up to `Finish`, or up to the first piece that is not valid."""
        items: list[BackendItem] = []
        for piece in pieces:
            try:
                items.append(check_piece(piece))
            except BackendError as failure:
                self._report(failure.message)
                return items, failure
            if isinstance(items[-1], Finish):
                break
        return items, None

    def _failure(self, error: BaseException | None) -> BackendError | None:
        """Return the failure for an exception of a plug-in, whose text may hold secrets."""
        if error is None or isinstance(error, BackendError):
            return error
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        self._report(f"{type(error).__name__}: {error}", where)
        return BackendError("upstream_error", f"the plug-in raised {type(error).__name__}")

    def _report(self, reason: str, where: str = "") -> None:
        data = {
            "model": self._model.name,
            "reason": redact(reason)[:WHERE_CHARACTERS_MAX],
            "where": where[-WHERE_CHARACTERS_MAX:],
        }
        log.error("plug-in failed", extra=data)

    def _check_left(self) -> None:
        """Begin no answer while too many threads do not stop.

        Raises:
            SetUpFault: this worker cannot run the plug-in; another worker may.
        """
        self._left = [thread for thread in self._left if thread.is_alive]
        if len(self._left) >= LEFT_MAX:
            message = "the plug-in of this model does not stop its answers"
            advice = f"{LEFT_MAX} threads of {self._model.backend} do not stop: restart the worker"
            raise SetUpFault("upstream_error", message, advice, retryable=True)

    def _stop(self, thread: AnswerThread) -> None:
        thread.stop()
        if thread.is_alive:
            asyncio.get_running_loop().call_later(STOP_S, self._interrupt, thread)

    def _interrupt(self, thread: AnswerThread) -> None:
        if thread.is_alive:
            thread.interrupt()
            asyncio.get_running_loop().call_later(STOP_S, self._note_left, thread)

    def _note_left(self, thread: AnswerThread) -> None:
        if thread.is_alive:
            self._left.append(thread)
            data = {"model": self._model.name, "threads": len(self._left)}
            log.error("plug-in does not stop", extra=data)


def load(name: str, where: str) -> type[Backend]:
    """Return the class of a plug-in.

    Args:
        name: `package.module:Class`.
        where: the place of the name, for messages.

    Raises:
        ConfigurationError: it cannot be imported, or is no plug-in.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as exc:
        raise ConfigurationError(
            f"{where}: cannot import {name}: {type(exc).__name__}: {exc}: "
            "install its package for the workers, or name its folder in PYTHONPATH"
        ) from exc
    if not isinstance(found, type) or not issubclass(found, Backend):
        raise ConfigurationError(f"{where}: {name} does not derive from workers.backends.plugin")
    return found


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> contract.Backend:
    """Build the backend of a model: see workers/backends/kinds.py."""
    where = f"models.{model.name}.backend"
    plugin = load(plugin_class(BACKEND_GROUP, model.backend), where)
    try:
        made = plugin(model)
    except Exception as exc:
        reason = f"{type(exc).__name__}: {exc}"
        raise ConfigurationError(f"{where}: {plugin.__name__} cannot be made: {reason}") from exc
    return PluginBackend(model, settings, made)
