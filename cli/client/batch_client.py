"""The client's requests for files and batches. Files are streamed and never held in memory.

The server keeps nothing of an upload that broke off, so the upload starts again. A download
continues at the byte where it broke off. Knows no terminal.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import aiohttp

from cli.client.client import Members, ServerUnreachable, no_server
from cli.client.transfer import Patience, TransferClient, TransientError, check, describe

PIECE_BYTES = 262_144  # of a file, per read

Object = dict[str, Any]


class BatchClient(TransferClient):
    """A client of an API node that can also use files and batches."""

    async def upload(self, path: Path, on_bytes: Callable[[int], None]) -> Object:
        """Upload a file for a batch; returns the file object.

        Args:
            on_bytes: called with the number of bytes sent so far.

        Raises:
            OSError: the file cannot be read.
            RequestRefused: the server does not accept the file.
            ServerUnreachable: no try made progress for `patience_s`.
        """
        patience, count_max = Patience(self.patience_s), 0

        def note(count: int) -> None:
            nonlocal count_max
            if count > count_max:  # only bytes that no earlier try has sent are progress
                count_max = count
                patience.renew()
            on_bytes(count)

        while True:
            with path.open("rb") as file:
                try:
                    return await self._upload(path.name, file, note)
                except TransientError as exc:
                    await patience.wait(self.url, str(exc))

    async def _upload(self, name: str, file: BinaryIO, on_bytes: Callable[[int], None]) -> Object:
        """Upload once, in pieces of our own: aiohttp reports no progress for an open file."""

        async def pieces() -> AsyncIterator[bytes]:
            count = 0
            while piece := file.read(PIECE_BYTES):
                yield piece
                count += len(piece)
                on_bytes(count)

        form = aiohttp.MultipartWriter("form-data")
        form.append("batch").set_content_disposition("form-data", name="purpose")
        form.append(pieces()).set_content_disposition("form-data", name="file", filename=name)
        try:
            async with self._session.post(f"{self.url}/v1/files", data=form) as response:
                await check(response)
                found: Object = await response.json()
                return found
        except aiohttp.ClientConnectorError as exc:
            raise ServerUnreachable(no_server(self.url)) from exc
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
            raise TransientError(describe(exc)) from exc

    async def create_batch(self, file_id: str, endpoint: str, window: str) -> Object:
        """Start a batch. All tries use one idempotency key, so the batch is started once.

        Args:
            window: the completion window, for example `24h`.
        """
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        return await self._persist("POST", "/v1/batches", json=body, key=secrets.token_urlsafe(16))

    async def batch(self, batch_id: str) -> Object:
        """Return a batch."""
        return await self._persist("GET", _path(batch_id))

    async def batches(self, limit: int) -> Object:
        """Return a page of batches, the newest first."""
        return await self._persist("GET", f"/v1/batches?limit={limit}")

    async def cancel_batch(self, batch_id: str) -> Object:
        """Cancel a batch; returns the batch."""
        return await self._persist("POST", _path(batch_id, "cancel"))

    async def redrive(self, batch_id: str) -> Object:
        """Start a new batch with the failed lines of `batch_id`; returns the new batch."""
        path = _path(batch_id, "redrive")
        return await self._persist("POST", path, key=secrets.token_urlsafe(16))

    async def follow_batch(
        self, batch_id: str, on_trouble: Callable[[str], None]
    ) -> AsyncIterator[Members]:
        """Yield the events of a batch until its end. Reconnects when the connection breaks."""
        with self._errors():
            events = self._tailrace.attach_batch(batch_id).events()
            async for event in self._watched(events, on_trouble):
                yield event

    async def content(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield the bytes of a file. Reconnects when the connection breaks."""
        count, size = 0, -1
        patience = Patience(self.patience_s)
        while count != size:
            try:
                headers = {"Range": f"bytes={count}-"} if count else {}
                path = f"{self.url}/v1/files/{quote(file_id, safe='')}/content"
                async with self._session.get(path, headers=headers) as response:
                    await check(response)
                    size = count + int(response.headers["Content-Length"])
                    async for piece in response.content.iter_chunked(PIECE_BYTES):
                        patience.renew()
                        count += len(piece)
                        yield piece
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                await patience.wait(self.url, describe(exc))
            except TransientError as exc:
                await patience.wait(self.url, str(exc))


def _path(batch_id: str, subresource: str = "") -> str:
    path = f"/v1/batches/{quote(batch_id, safe='')}"
    return f"{path}/{subresource}" if subresource else path
