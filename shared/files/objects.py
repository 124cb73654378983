"""Where bytes lie: named objects behind obstore, in a directory or in S3, GCS or Azure by URL.

An object is there as a whole or not at all. What a writer that died has left is never listed; a
directory is freed of it by `clear_remains`, a bucket by its own rule for unfinished uploads. Knows
nothing of Redis, of owners, or of what the bytes mean.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
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
SCHEMES = ("file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
LOCAL_PART_BYTES = 1_048_576  # written at once
REMOTE_PART_BYTES = 8_388_608  # S3 takes no smaller ones than 5 MiB, and 10,000 of them
PARTS_AT_ONCE = 2  # with the parts' size, what one writer keeps in memory
ABORT_S = 5.0
READ_BYTES = 262_144
WAITING_PIECES = 2
# obstore's own are 30 s for a whole answer, and three minutes of tries. Ours take the place of what
# the environment says, so AWS_ALLOW_HTTP is said here: only an AWS_ENDPOINT of http:// is asked so.
CLIENT: dict[str, Any] = {
    "connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h", "allow_http": True,
}  # fmt: skip
RETRIES: dict[str, Any] = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
# While a file is written to a directory it is called so; obstore lists none of these.
UNFINISHED = re.compile(r".+#[0-9]+", re.ASCII)


class ObjectInfo(NamedTuple):
    name: str
    bytes: int
    modified_s: float  # Unix, by the store's clock


class ObjectStore:
    """The objects of one installation. Every method may raise `FilesUnavailable`.

    Names are paths of plain ASCII, `files/file-…`. A directory is made when it is first needed, for
    nobody but its owner.

    Raises:
        ConfigurationError: the URL cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.directory = directory_of(settings)
        self._remote: Any = None
        if self.directory is None:
            self._remote = _open_remote(settings.files_url)
        else:
            check_directory(self.directory)

    @cached_property
    def _store(self) -> Any:
        if self.directory is None:
            return self._remote
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return LocalStore(self.directory, automatic_cleanup=True)

    async def put(self, name: str, data: bytes | AsyncIterable[bytes]) -> None:
        """Write an object, over one of the same name. What `data` raises leaves nothing behind."""
        if not isinstance(data, bytes):
            await self._put_pieces(name, data)
            return
        with translated():
            await obstore.put_async(self._store, name, data)

    async def _put_pieces(self, name: str, pieces: AsyncIterable[bytes]) -> None:
        """Pieces are pulled here, in a task of ours: obstore's own would outlive a cancellation."""
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
                    if isinstance(exc, Exception):  # then there is time to clear up
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
        """Yield an object's bytes from `start` on, in pieces of `READ_BYTES` or so.

        Raises:
            FileNotFoundError: there is none.
        """
        options: Any = None
        with translated():
            if start:
                size = (await obstore.head_async(self._store, name))["size"]
                if start >= size:  # which a store would call a mistake
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
        """Return how many bytes an object has; None: there is none."""
        try:
            with translated():
                return int((await obstore.head_async(self._store, name))["size"])
        except FileNotFoundError:
            return None

    async def delete(self, name: str) -> bool:
        """Delete an object; False: a directory had none. A bucket does not say."""
        try:
            with translated():
                await obstore.delete_async(self._store, name)
        except FileNotFoundError:
            return False
        return True

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all below a path; returns how many."""
        names = [info.name async for info in self.list(prefix)]
        if self.directory is None and names:
            with translated():
                await obstore.delete_async(self._store, names)
            return len(names)
        for name in names:  # a directory stops at the first that somebody else has deleted
            await self.delete(name)
        return len(names)

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield what is below a path (whole segments), in any order."""
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
        """Return what is free on the directory's disk; None: the objects are not in a directory."""
        if self.directory is None:
            return None
        with translated():
            return await asyncio.to_thread(free_bytes_at, self.directory)

    async def clear_remains(self, older_s: float) -> int:
        """Delete from a directory what writers that died have left; returns how many."""
        if self.directory is None:
            return 0
        with translated():
            return await asyncio.to_thread(_clear_remains, self.directory, older_s)


class _Feed:
    """What obstore pulls from: bounded, and never left waiting."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_PIECES)
        self.is_broken_off = False

    async def give(self, piece: bytes | None) -> None:
        """Wait until there is room; None is the end."""
        await self._pieces.put(piece)

    def break_off(self) -> None:
        """Let whoever waits here, or comes later, fail."""
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
    """Turn what obstore raises into `FilesUnavailable`; FileNotFoundError stays."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        raise FilesUnavailable(f"the file store refuses: {_first_line(exc)}") from exc


def directory_of(settings: Settings) -> Path | None:
    """Return the directory of the files; None: they are not in one.

    Raises:
        ConfigurationError: a URL of a kind that is not known.
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
    """Return a path, or the closest one above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes_at(path: Path) -> int:
    """Return what a program without special rights may still write where `path` is, or would be."""
    return shutil.disk_usage(existing_part(path)).free


def check_directory(directory: Path) -> None:
    """See that a directory can be used, or made; makes nothing.

    Raises:
        ConfigurationError.
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
                continue  # it was finished meanwhile, or somebody else clears up, too
    return count


def _first_line(exc: BaseException) -> str:
    """obstore's texts go on with the debug form of what went wrong, over many lines."""
    return str(exc).partition("\n")[0] or type(exc).__name__
