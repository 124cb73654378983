"""The backend of the kind `local`: a model that processes of this worker compute.

It checks the request and starts an answer at a process of the pool; `workers/local_model/` has the
program of these processes. The prompt is made with the model's own template, and a partial answer
is added at the end of the prompt, so every partial answer can be continued.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, TypeVar

from shared.config.local_models import find_file
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError, Refusal
from shared.log.events import Token, Usage
from shared.log.request import Request
from workers.backends.contract import Backend, BackendItem, Finish
from workers.backends.http.upstream_http import UpstreamHttp
from workers.backends.limits import Limits
from workers.backends.local.pool import EnginePool
from workers.backends.reading.failure import CONTEXT_TOO_LONG
from workers.local_model.prompt import PromptRefused, read_turns
from workers.local_model.sampling import read_sampling

PROCESSES = 2
THREADS_MAX = 4  # more bring a small model little
CONTEXT_TOKENS = 4_096
MEMORY_MB = 2_048  # of one process, without the model's file, which all processes share


T = TypeVar("T")


def build(
    model: Model, settings: Settings, http: UpstreamHttp, environ: Mapping[str, str]
) -> Backend:
    """Build the backend of a model: see workers/backends/kinds.py. Starts no process."""
    return LocalBackend(model, settings)


class LocalBackend:
    """One model that this worker computes. The model and the engine are installed."""

    counts_whole = True

    def __init__(self, model: Model, settings: Settings) -> None:
        self.can_continue = model.may_continue
        self._settings = settings
        options = model.options
        file, missing = find_file(model.upstream_name, options.get("file", ""))
        assert not missing, "build_backends has checked this"
        self._system = options.get("system", "")
        self.pool = EnginePool(
            {
                "file": file,
                "context_tokens": options.get("context_tokens", CONTEXT_TOKENS),
                "threads": options.get("threads", min(os.cpu_count() or 1, THREADS_MAX)),
                "memory_mb": options.get("memory_mb", MEMORY_MB),
            },
            options.get("processes", PROCESSES),
        )

    async def stream(
        self, request: Request, *, prefix: str, seed: str, form: str = ""
    ) -> AsyncGenerator[list[BackendItem], None]:
        """See `Backend.stream`. The wait for a process is not a wait for the first token."""
        task = self._task(request, prefix, seed)
        clock = asyncio.get_running_loop().time
        limits = Limits(self._settings, clock())
        process = await _until(limits, self.pool.take())
        try:
            process.ask(task)
            limits.sent(clock())
            while not process.is_idle:
                line = await _until(limits, process.read())
                process.note(line)
                yield _items(line)
                limits.has_content = limits.has_content or "text" in line
                limits.read(clock(), is_finished=False)
        finally:
            await self.pool.give_back(process)

    async def aclose(self) -> None:
        """End the processes."""
        await self.pool.aclose()

    def _task(self, request: Request, prefix: str, seed: str) -> dict[str, Any]:
        try:
            return {
                "turns": read_turns(request.messages, self._system),
                "prefix": prefix,
                "sampling": read_sampling(request.params, seed),
            }
        except PromptRefused as exc:
            raise _refused(str(exc)) from exc


async def _until(limits: Limits, waited: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout_at(limits.deadline):
            return await waited
    except TimeoutError as exc:
        raise limits.exceeded() from exc


def _items(line: dict[str, Any]) -> list[BackendItem]:
    if "refused" in line:
        raise _refused(line["refused"], code=CONTEXT_TOO_LONG if line["too_long"] else None)
    if "finish" in line:
        prompt, answer = line["usage"]
        return [Usage(prompt, answer, prompt + answer), Finish(line["finish"])]
    return [Token(line["text"])] if "text" in line else []


def _refused(message: str, code: str | None = None) -> BackendError:
    upstream = Refusal(message, 400, code, "invalid_request_error")
    return BackendError("upstream_refused", message, retryable=False, upstream=upstream)
