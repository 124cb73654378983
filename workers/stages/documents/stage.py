"""The stage `documents`: reads attached files page by page before the model is asked.

Readers see `progress` events meanwhile. The texts replace the files in the request, so the model
needs no sense for files. A file is read in a process of its own (reading.py) and its text is kept
for a while (cache.py). Source: docs/stages.md.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.util import find_spec

from shared.config.models import Model
from shared.config.stages.spec import StageTable
from shared.errors import BackendError, ConfigurationError, NotFound
from shared.files.store import FileStore
from shared.log.events import Progress
from shared.log.request import Request
from workers.stages.contract import Answer, AnswerStage, Items, Services
from workers.stages.documents.cache import TextCache, text_digest_of
from workers.stages.documents.parts import (
    PDF,
    PICTURE,
    UNNAMED,
    Attached,
    find_files,
    kind_of,
    plain_name,
    shown_text,
    with_texts,
)
from workers.stages.documents.reading import Bounds, read_file, unreadable

FILES_MAX = 20
CACHE_S = 3_600.0
LIST_S = 30.0  # in which tesseract lists its languages, when the worker starts
READ_AT_ONCE = 2  # files, of one model in one worker
PROGRESS_APART_S = 0.1  # between two events; the last page always has one
_BOUNDS = ("pages_max", "file_bytes_max", "text_max", "read_s", "memory_mb", "ocr")
_STAGES = {PDF: "pdf_parsing", PICTURE: "picture_reading"}  # of progress


class Documents:
    """The reader of one model's files."""

    def __init__(self, table: StageTable, services: Services) -> None:
        options = table.options
        self.bounds = Bounds(**{name: options[name] for name in _BOUNDS if name in options})
        self.files_max = options.get("files_max", FILES_MAX)
        self.reads_pictures = bool(options.get("pictures", False))
        self.cache = TextCache(services.redis, options.get("cache_s", CACHE_S))
        self.turns = asyncio.Semaphore(READ_AT_ONCE)
        self._services = services
        self._files: FileStore | None = None

    @property
    def files(self) -> FileStore:
        """The files of /v1/files; opened for the first request that names one of them."""
        if self._files is None:
            self._files = FileStore(self._services.redis, self._services.settings)
        return self._files

    def open(self, answer: Answer) -> AnswerStage | None:
        """Return the stage of one attempt; None: the request has no files."""
        found = find_files(answer.request, with_pictures=self.reads_pictures)
        return AnswerDocuments(self, answer, found) if found else None


class AnswerDocuments(AnswerStage):
    """The files of one attempt."""

    def __init__(self, stage: Documents, answer: Answer, found: list[Attached]) -> None:
        self._stage = stage
        self._owner = answer.meta.owner
        self._found = found
        self._left = stage.bounds.text_max  # characters that the other files may have

    async def prepare(self, request: Request) -> AsyncGenerator[Items | Request, None]:
        """Read each file, and yield the request with the texts last."""
        if len(self._found) > self._stage.files_max:
            message = f"at most {self._stage.files_max} files, got {len(self._found)}"
            raise BackendError("document_too_large", message, retryable=False)
        texts: list[tuple[Attached, str]] = []
        for attached in self._found:
            name, kind, data = await self._load(attached)
            if not kind:
                continue
            pages: list[str] = []
            async with aclosing(self._read(name, kind, data, pages)) as steps:
                async for progress in steps:
                    yield [progress]
            self._left -= sum(map(len, pages))
            if self._left < 0:
                raise unreadable(name, "long", f"more than {self._stage.bounds.text_max}")
            texts.append((attached, shown_text(name, pages, is_paged=kind == PDF)))
        yield with_texts(request, texts)

    async def _load(self, attached: Attached) -> tuple[str, str, str | bytes]:
        """Return name, kind and data of a file; a file of an unknown kind has no kind."""
        if not attached.file_id:
            return attached.name, attached.kind, attached.data
        record = await self._stage.files.get(attached.file_id, self._owner)
        if record is None:
            message = f"{attached.file_id}: there is no such file of this owner"
            raise BackendError("document_invalid", message, retryable=False)
        name = attached.name if attached.name != UNNAMED else plain_name(record.filename)
        kind = kind_of("", record.filename)
        if not kind:
            return name, "", b""
        if record.bytes > self._stage.bounds.file_bytes_max:
            raise unreadable(name, "large", f"{record.bytes} bytes")
        try:
            pieces = [piece async for piece in self._stage.files.read(record)]
        except NotFound:
            raise unreadable(name, "broken", "its bytes are gone") from None
        return name, kind, b"".join(pieces)

    async def _read(
        self, name: str, kind: str, data: str | bytes, pages: list[str]
    ) -> AsyncGenerator[Progress, None]:
        """Fill `pages`, and yield the progress."""
        stage, bounds = _STAGES.get(kind, "file_reading"), self._stage.bounds
        digest = await asyncio.to_thread(text_digest_of, kind, data, bounds.ocr)
        kept = await self._stage.cache.find(self._owner, digest)
        if kept is not None and len(kept) <= bounds.pages_max:
            pages += kept
            yield _progress(stage, len(kept), len(kept))
            return
        told_s = 0.0
        async with self._stage.turns, aclosing(read_file(name, kind, data, bounds)) as reading:
            async for page in reading:
                pages.append(page.text)
                now_s = asyncio.get_running_loop().time()
                if len(pages) == page.total or now_s - told_s >= PROGRESS_APART_S:
                    told_s = now_s
                    yield _progress(stage, len(pages), page.total)
        if not any(text.strip() for text in pages):
            detail = "" if bounds.ocr else "it has pictures and no text, which need OCR"
            raise unreadable(name, "broken", detail or "no text was found in it")
        await self._stage.cache.keep(self._owner, digest, pages)


def _progress(stage: str, current: int, total: int) -> Progress:
    return Progress(stage, current, total, round(100 * current / total, 1))


def _check_languages(languages: str, where: str) -> None:
    """Check that tesseract has these languages, joined with +.

    Raises:
        ConfigurationError: it lacks one, or is not there.
    """
    if shutil.which("tesseract") is None:
        raise ConfigurationError(f"{where}: tesseract is not on PATH: install it")
    try:
        done = subprocess.run(
            ["tesseract", "--list-langs"], capture_output=True, timeout=LIST_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigurationError(f"{where}: tesseract: {exc}") from exc
    known = (done.stdout or done.stderr).decode("utf-8", "replace").split()
    if missing := [language for language in languages.split("+") if language not in known]:
        raise ConfigurationError(f"{where}: tesseract has no language {', '.join(missing)}")


def build(table: StageTable, model: Model, services: Services) -> Documents:
    """Build the stage.

    Raises:
        ConfigurationError: a program or package is missing.
    """
    if find_spec("pypdf") is None:
        raise ConfigurationError(
            f"{table.where}: documents needs pypdf: pip install tailrace[documents]"
        )
    if languages := table.options.get("ocr"):
        _check_languages(languages, f"{table.where}.ocr")
    if table.options.get("pictures") and "ocr" not in table.options:
        raise ConfigurationError(f"{table.where}.pictures: needs ocr")
    return Documents(table, services)
