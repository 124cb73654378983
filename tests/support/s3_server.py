"""As much of S3 as an object store's client needs, in memory: objects, uploads in parts, lists.

Signatures are not looked at. Refuses parts that S3 would refuse. Does not import the system under
test.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from xml.sax.saxutils import escape

from aiohttp import web

PART_BYTES_MIN = 5 * 1_048_576
MODIFIED = "2026-01-01T00:00:00.000Z"


class S3Server:
    """One bucket, whatever it is called."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.finished: list[list[int]] = []  # sizes of the parts of each upload
        self.aborted = 0
        self.is_away = False
        self.url = ""
        self._numbers = itertools.count(1)

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which a client finds it."""
        return {
            "AWS_ENDPOINT": self.url, "AWS_REGION": "r",
            "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        }  # fmt: skip

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if self.is_away:
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        name = request.path.lstrip("/").partition("/")[2]
        if "delete" in request.query:
            return self._delete(await request.text())
        if not name:
            return self._list(request.query.get("prefix", ""))
        upload = request.query.get("uploadId", "")
        match request.method:
            case "PUT" if upload:
                self.uploads[upload][int(request.query["partNumber"])] = await request.read()
            case "PUT":
                self.objects[name] = await request.read()
            case "POST" if upload:
                return self._complete(name, upload)
            case "POST":
                return self._begin()
            case "DELETE" if upload:
                del self.uploads[upload]
                self.aborted += 1
                return web.Response(status=204)
            case "DELETE":
                self.objects.pop(name, None)
                return web.Response(status=204)
            case _:
                return self._read(request, name)
        return web.Response(headers={"ETag": '"e"'})

    def _begin(self) -> web.Response:
        upload = f"u{next(self._numbers)}"
        self.uploads[upload] = {}
        tag = "InitiateMultipartUploadResult"
        return _xml(f"<{tag}><Bucket>b</Bucket><Key>k</Key><UploadId>{upload}</UploadId></{tag}>")

    def _complete(self, name: str, upload: str) -> web.Response:
        parts = [part for _, part in sorted(self.uploads.pop(upload).items())]
        if any(len(part) < PART_BYTES_MIN for part in parts[:-1]):
            return web.Response(status=400, text="<Error><Code>EntityTooSmall</Code></Error>")
        self.finished.append([len(part) for part in parts])
        self.objects[name] = b"".join(parts)
        tag = "CompleteMultipartUploadResult"
        return _xml(f'<{tag}><Bucket>b</Bucket><Key>k</Key><ETag>"e"</ETag></{tag}>')

    def _read(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self.objects:
            return web.Response(status=404)
        data = self.objects[name]
        headers = {"ETag": '"e"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        asked = request.headers.get("Range")
        if asked is None:
            headers["Content-Length"] = str(len(data))
            return web.Response(body=data, headers=headers)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return web.Response(status=206, body=data[start:], headers=headers)

    def _delete(self, asked: str) -> web.Response:
        """Many at once; what is not there counts as deleted."""
        names = re.findall(r"<Key>([^<]*)</Key>", asked)
        for name in names:
            self.objects.pop(name, None)
        deleted = "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in names)
        return _xml(f"<DeleteResult>{deleted}</DeleteResult>")

    def _list(self, prefix: str) -> web.Response:
        found = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{MODIFIED}</LastModified>"
            f'<ETag>"e"</ETag><Size>{len(data)}</Size></Contents>'
            for name, data in sorted(self.objects.items())
            if name.startswith(prefix)
        )
        tag = "ListBucketResult"
        return _xml(f"<{tag}><Name>b</Name><IsTruncated>false</IsTruncated>{found}</{tag}>")


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")


@contextlib.asynccontextmanager
async def s3_server() -> AsyncIterator[S3Server]:
    """Serve one on a free loopback port."""
    server = S3Server()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
