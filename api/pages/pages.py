"""The pages for a browser: the chat page, and the OpenAPI document as a page.

`make pages` bundles the sources in web/ into static/, and a node only serves that folder. It reads
the files once, at the start. They load nothing from other hosts, and the Content-Security-Policy
sent with them forbids that. So even if an answer could add a tag to the page, the tag would run no
script.

Browsers keep a file under an address that contains a hash of the file: the query `v` that this
module adds to the addresses in HTML, or the hash that the bundler puts into a name. They ask for
any other address each time, with the entity tag, and get 304 if the file has not changed.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.pages.openapi.document import DOCUMENT
from shared.errors import NotFound

DIRECTORY = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".txt": "text/plain",
    ".woff2": "font/woff2",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Text becomes markup only through the sanitiser's policy: any other `innerHTML = text` throws.
TRUSTED_TYPES = "; require-trusted-types-for 'script'; trusted-types dompurify"
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# 365 days. For an address with a hash of the content.
FOR_GOOD = "public, max-age=31536000, immutable"
# The bundler's names: katex-ABCDEFGH.js
HASHED = re.compile(r"-[A-Z0-9]{8}\.\w+$")
ADDRESS = re.compile(r'(?<=")/page/([\w.-]+)(?=")')
HASH_CHARACTERS = 16
GZIP_LEVEL = 6


@dataclass(frozen=True, slots=True)
class StaticFiles:
    """The files as a node sends them, and their hashes, by name."""

    contents: Mapping[str, bytes]
    hashes: Mapping[str, str]


@cache
def read_static_files() -> StaticFiles:
    """Return the files of the folder; the first call in a process reads and hashes them."""
    paths = [path for path in sorted(DIRECTORY.iterdir()) if path.suffix in MEDIA_TYPES]
    contents = {path.name: path.read_bytes() for path in paths}
    hashes = {name: _hash(content) for name, content in contents.items()}
    for name in contents:
        if name.endswith(".html"):
            contents[name] = _with_hashes(contents[name], hashes)
            hashes[name] = _hash(contents[name])
    return StaticFiles(contents, hashes)


@cache
def encoded_document() -> bytes:
    return msgspec.json.encode(DOCUMENT)


class PageRoutes:
    """The handlers of the static files and of /openapi.json."""

    def __init__(self) -> None:
        files = read_static_files()
        self.files, self.hashes = files.contents, files.hashes
        self.compressed: dict[str, bytes] = {}
        self.document = encoded_document()

    async def chat(self, request: Request) -> ASGIApp:
        """GET /: the chat page."""
        policy = {"content-security-policy": POLICY + TRUSTED_TYPES}
        return self._file(request, "index.html", policy)

    async def console(self, request: Request) -> ASGIApp:
        """GET /console: the operators' console."""
        return self._file(request, "console.html")

    async def docs(self, request: Request) -> ASGIApp:
        """GET /docs: the OpenAPI document as a page."""
        return self._file(request, "docs.html")

    async def asset(self, request: Request) -> ASGIApp:
        """GET /page/{name}: a file that the pages load."""
        return self._file(request, request.path_params["name"])

    async def openapi(self, request: Request) -> ASGIApp:
        """GET /openapi.json: the OpenAPI document."""
        return Response(self.document, headers=HEADERS, media_type="application/json")

    def _file(self, request: Request, name: str, more: Mapping[str, str] | None = None) -> Response:
        if name not in self.files:
            raise NotFound("page")
        tag = f'"{self.hashes[name]}"'
        headers = {**HEADERS, **(more or {}), "etag": tag, "vary": "accept-encoding"}
        # During a rolling update another node may have another file at this address.
        if HASHED.search(name) or request.query_params.get("v") == self.hashes[name]:
            headers["cache-control"] = FOR_GOOD
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        content = self.files[name]
        if _takes_gzip(request) and not name.endswith(".woff2"):  # which is compressed already
            content = self._compressed(name)
            headers["content-encoding"] = "gzip"
        return Response(content, headers=headers, media_type=MEDIA_TYPES[Path(name).suffix])

    def _compressed(self, name: str) -> bytes:
        """Return the file compressed. The first request for it takes up to 10 ms."""
        if name not in self.compressed:
            self.compressed[name] = gzip.compress(self.files[name], GZIP_LEVEL, mtime=0)
        return self.compressed[name]


def _with_hashes(html: bytes, hashes: Mapping[str, str]) -> bytes:
    """Add the query `v` to the addresses of this folder's files."""

    def address(found: re.Match[str]) -> str:
        known = hashes.get(found[1])
        return f"{found[0]}?v={known}" if known else found[0]

    return ADDRESS.sub(address, html.decode()).encode()


def _takes_gzip(request: Request) -> bool:
    """Whether a header like `gzip, deflate;q=0.5` allows gzip; `gzip;q=0` refuses it."""
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = part.partition(";")
        if name.strip().lower() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", quality)
    return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HASH_CHARACTERS]
