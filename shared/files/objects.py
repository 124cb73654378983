"""Named objects behind obstore: in a directory, or in S3, GCS or Azure by URL.

Invariant: an object exists completely or not at all. The remains of a dead writer are never listed.
`clear_remains` removes them from a directory; a bucket needs its own rule for unfinished uploads.
This module knows nothing of Redis, of owners, or of the meaning of the bytes.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from shared.config.settings import Settings
from shared.errors import ConfigurationError, FilesUnavailable

VARIABLE = "TAILRACE_FILES_URL"
ADVICE = "set TAILRACE_FILES_URL to a place that this user may write to"
SCHEMES = ("file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
LOCAL_PART_BYTES = 1_048_576  # one write to a directory
REMOTE_PART_BYTES = 8_388_608  # one part of an upload; S3 accepts 10,000 parts of 5 MiB or more
PARTS_AT_ONCE = 2  # parts of one writer in memory
ABORT_S = 5.0  # for obstore to clean up after a failed write
READ_BYTES = 262_144  # least size of a piece that `read` yields
WAITING_PIECES = 2  # pieces between `put` and obstore
# obstore's defaults are 30 s for a whole response, and retries for three minutes. These options
# replace those of the environment, so AWS_ALLOW_HTTP must be set here; it only has an effect where
# AWS_ENDPOINT is an http:// URL.
CLIENT: dict[str, Any] = {
    "connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h", "allow_http": True,
}  # fmt: skip
RETRIES: dict[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
# obstore's name for an unfinished object in a directory; obstore does not list these.
UNFINISHED = re.compile(r".+#[0-9]+", re.ASCII)


class ObjectInfo(NamedTuple):
    """An object in a listing."""

    name: str
    bytes: int
    modified_s: float  # Unix time, by the store's clock


class ObjectStore:
    """The objects of one installation.

    Every method may raise `FilesUnavailable`: the store did not answer, or refused. Names are ASCII
    paths, for example `files/file-…`. A missing directory is created at the first use, with access
    for its Unix owner only. A directory that no setting names may be unusable, for example in a
    read-only container: then each use is `FilesUnavailable`, and the rest of the system works.

    Raises:
        ConfigurationError: the URL cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.directory = directory_of(settings)
        self._remote: Any = None
        if self.directory is None:
            self._remote = _open_remote(settings.files_url)
        elif settings.files_url:
            check_directory(self.directory)

    @cached_property
    def _store(self) -> Any:
        if self.directory is None:
            return self._remote
        try:
            check_directory(self.directory)
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (ConfigurationError, OSError) as exc:
            raise FilesUnavailable(f"{exc}: {ADVICE}") from exc
        return LocalStore(self.directory, automatic_cleanup=True)

    async def put(self, name: str, data: bytes | AsyncIterable[bytes]) -> None:
        """Write an object, and replace one of the same name. If `data` raises, nothing is left."""
        if not isinstance(data, bytes):
            await self._put_pieces(name, data)
            return
        with translated():
            await obstore.put_async(self._store, name, data)

    async def _put_pieces(self, name: str, pieces: AsyncIterable[bytes]) -> None:
        """Read the pieces in the caller's task: a task of obstore would outlive a cancellation."""
        feed = _Feed()
        try:
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(self._write(name, feed))
                try:
                    async for piece in pieces:
                        await feed.give(piece)
                    await feed.give(None)
                except BaseException as exc:
                    feed.break_off()
                    if isinstance(exc, Exception):  # not cancelled: let obstore clean up
                        await asyncio.wait([writing], timeout=ABORT_S)
                    raise
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _write(self, name: str, feed: _Feed) -> None:
        size = REMOTE_PART_BYTES if self.directory is None else LOCAL_PART_BYTES
        try:
            with translated():
                await obstore.put_async(
                    self._store, name, feed, chunk_size=size, max_concurrency=PARTS_AT_ONCE
                )
        except FilesUnavailable:
            if not feed.is_broken_off:
                raise

    async def read(self, name: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of an object from `start` on, in pieces of about `READ_BYTES`.

        Raises:
            FileNotFoundError: no such object.
        """
        options: Any = None
        with translated():
            if start:
                size = (await obstore.head_async(self._store, name))["size"]
                if start >= size:  # a store would refuse this range
                    return
                options = {"range": {"offset": start}}
            found = await obstore.get_async(self._store, name, options=options)
            stream = aiter(found.stream(min_chunk_size=READ_BYTES))
        while True:
            with translated():
                piece = await anext(stream, None)
            if piece is None:
                return
            yield bytes(piece)

    async def size(self, name: str) -> int | None:
        """Return the size of an object, bytes; None: no such object."""
        try:
            with translated():
                return int((await obstore.head_async(self._store, name))["size"])
        except FileNotFoundError:
            return None

    async def delete(self, name: str) -> bool:
        """Delete an object. False: it was absent from a directory; a bucket does not tell."""
        try:
            with translated():
                await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return False
        return True

    async def delete_many(self, names: Sequence[str]) -> None:
        """Delete objects; of a bucket, many in one request. Absent objects are no error."""
        if self.directory is None and names:
            try:
                with translated():
                    await obstore.delete_async(self._store, names)
            except FileNotFoundError:
                pass  # another process has deleted one, and others may be left
            else:
                return
        for name in names:  # one by one: a directory fails at the first absent object
            await self.delete(name)

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object below a path, and return their number."""
        names = [info.name async for info in self.list(prefix)]
        await self.delete_many(names)
        return len(names)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects below a path (whole segments), in any order."""
        with translated():
            pages = obstore.list(self._store, prefix=prefix or None, chunk_size=500)
        while True:
            with translated():
                page = await anext(pages, None)
            if page is None:
                return
            for found in page:
                modified_s = found["last_modified"].timestamp()
                yield ObjectInfo(found["path"], found["size"], modified_s)

    async def free_bytes(self) -> int | None:
        """Return the free bytes of the disk; None: the objects are in a bucket."""
        if self.directory is None:
            return None
        with translated():
            return await asyncio.to_thread(free_bytes_at, self.directory)

    async def clear_remains(self, older_s: float) -> int:
        """Delete remains older than `older_s` s from a directory, and return their number."""
        if self.directory is None:
            return 0
        with translated():
            return await asyncio.to_thread(_clear_remains, self.directory, older_s)


class _Feed:
    """The bounded queue from which obstore pulls pieces. `break_off` ends every wait."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_PIECES)
        self.is_broken_off = False

    async def give(self, piece: bytes | None) -> None:
        """Add a piece when the queue has room; None marks the end."""
        await self._pieces.put(piece)

    def break_off(self) -> None:
        """Make the present and every later read fail."""
        self.is_broken_off = True
        if self._pieces.empty():
            self._pieces.put_nowait(b"")

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        piece = None if self.is_broken_off else await self._pieces.get()
        if self.is_broken_off:
            raise ConnectionAbortedError("broken off")
        if piece is None:
            raise StopAsyncIteration
        return piece


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of obstore into `FilesUnavailable`, except FileNotFoundError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise FilesUnavailable(f"the file store refuses: {_first_line(exc)}") from exc


def directory_of(settings: Settings) -> Path | None:
    """Return the directory of the files; None: they are in a bucket.

    Raises:
        ConfigurationError: TAILRACE_FILES_URL has an unknown scheme.
    """
    url = settings.files_url
    if not url:
        return Path(settings.data_dir, "files").resolve()
    parts = urlsplit(url)
    if not parts.scheme and url.startswith("/"):
        return Path(url)
    if parts.scheme.lower() not in SCHEMES:
        raise ConfigurationError(
            f"{VARIABLE} must be a directory's absolute path, file:///…, s3://…, gs://… or az://…"
        )
    if parts.scheme.lower() != "file":
        return None
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        raise ConfigurationError(f"{VARIABLE}: write file:///absolute/path")
    return Path(path)


def existing_part(path: Path) -> Path:
    """Return the path, or its closest ancestor that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes_at(path: Path) -> int:
    """Return the free bytes on the disk of `path`, for a program without special rights."""
    return shutil.disk_usage(existing_part(path)).free


def check_directory(directory: Path) -> None:
    """Check that a directory can be used, or created. Creates nothing.

    Raises:
        ConfigurationError: the directory is not writable.
    """
    place = directory
    try:
        place = existing_part(directory)
        is_usable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{VARIABLE}: {directory}: {exc}") from exc
    if not is_usable:
        raise ConfigurationError(
            f"{VARIABLE}: {directory}: {place} is no directory that can be written to"
        )


def _open_remote(url: str) -> Any:
    try:
        return from_url(url, client_options=CLIENT, retry_config=RETRIES)  # type: ignore[call-overload]
    except (BaseError, ValueError, OSError) as exc:
        raise ConfigurationError(f"{VARIABLE}: {_first_line(exc)}") from exc


def _clear_remains(directory: Path, older_s: float) -> int:
    count, before = 0, time.time() - older_s
    for folder, _, names in os.walk(directory):
        for name in filter(UNFINISHED.fullmatch, names):
            path = Path(folder, name)
            try:
                if path.stat().st_mtime < before:
                    path.unlink()
                    count += 1
            except FileNotFoundError:
                continue  # the write has finished, or another process has deleted it
    return count


def _first_line(exc: BaseException) -> str:
    """Return the first line of an error: obstore adds debug output of many lines."""
    return str(exc).partition("\n")[0] or type(exc).__name__
