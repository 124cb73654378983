"""The client's requests for files and batches: uploads and downloads that are never in memory.

An upload that broke off left nothing, so it is sent again from its start; a download goes on from
the byte it had come to. Knows nothing of the terminal.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import aiohttp

from cli.client.client import Client, Event, Passing, Patience, Unreachable, check, nobody, words

READ_BYTES = 262_144

Object = dict[str, Any]


class BatchClient(Client):
    """Talks to an API node about batches."""

    async def upload(self, path: Path, on_bytes: Callable[[int], None]) -> Object:
        """Upload a file for a batch; `on_bytes` is told how far it is.

        Raises:
            OSError: the file cannot be read.
            Refused, Unreachable.
        """
        patience, most = Patience(self.patience_s), 0

        def note(count: int) -> None:
            nonlocal most
            if count > most:  # the tries count from where none has got any further
                most = count
                patience.renew()
            on_bytes(count)

        while True:
            with path.open("rb") as file:
                try:
                    return await self._upload(path.name, file, note)
                except Passing as exc:
                    await patience.wait(self.url, str(exc))

    async def _upload(self, name: str, file: BinaryIO, on_bytes: Callable[[int], None]) -> Object:
        """aiohttp would read an open file from its own thread, and say nothing of how far it is."""

        async def pieces() -> AsyncIterator[bytes]:
            count = 0
            while piece := file.read(READ_BYTES):
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
            raise Unreachable(nobody(self.url)) from exc
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as exc:
            raise Passing(words(exc)) from exc

    async def create_batch(self, file_id: str, endpoint: str, window: str) -> Object:
        """Start a batch; one key for all tries, so that it is started once."""
        body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": window}
        headers = {"Idempotency-Key": secrets.token_urlsafe(16)}
        return await self._persist("POST", "/v1/batches", json=body, headers=headers)

    async def batch(self, batch_id: str) -> Object:
        return await self._persist("GET", _path(batch_id))

    async def batches(self, limit: int) -> Object:
        """Return a page of batches, the newest first."""
        return await self._persist("GET", f"/v1/batches?limit={limit}")

    async def cancel_batch(self, batch_id: str) -> Object:
        return await self._persist("POST", _path(batch_id, "cancel"))

    async def redrive(self, batch_id: str) -> Object:
        headers = {"Idempotency-Key": secrets.token_urlsafe(16)}
        return await self._persist("POST", _path(batch_id, "redrive"), headers=headers)

    async def follow_batch(
        self, batch_id: str, on_trouble: Callable[[str], None]
    ) -> AsyncIterator[Event]:
        """Yield a batch's events until its end, over as many connections as it takes."""
        async for event in self._follow(_path(batch_id, "events"), "", on_trouble):
            yield event

    async def content(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield a file's bytes, over as many connections as it takes."""
        count, size = 0, -1
        patience = Patience(self.patience_s)
        while count != size:
            try:
                headers = {"Range": f"bytes={count}-"} if count else {}
                path = f"{self.url}/v1/files/{quote(file_id, safe='')}/content"
                async with self._session.get(path, headers=headers) as response:
                    await check(response)
                    size = count + int(response.headers["Content-Length"])
                    async for piece in response.content.iter_chunked(READ_BYTES):
                        patience.renew()
                        count += len(piece)
                        yield piece
            except (aiohttp.ClientError, TimeoutError, OSError) as exc:
                await patience.wait(self.url, words(exc))
            except Passing as exc:
                await patience.wait(self.url, str(exc))


def _path(batch_id: str, below: str = "") -> str:
    path = f"/v1/batches/{quote(batch_id, safe='')}"
    return f"{path}/{below}" if below else path
