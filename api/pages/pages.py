"""The pages for a browser: the chat page, and the OpenAPI document as a page.

The static files beside this module are read once, at the start. They load nothing from other hosts,
and the Content-Security-Policy sent with them forbids that. So even if an answer could add a tag to
the page, the tag would run no script.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from api.pages.openapi.document import DOCUMENT
from shared.errors import NotFound

DIRECTORY = Path(__file__).parent / "static"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PageRoutes:
    """The handlers of the static files and of /openapi.json."""

    def __init__(self) -> None:
        self.files = {path.name: path.read_bytes() for path in sorted(DIRECTORY.iterdir())}
        self.document = msgspec.json.encode(DOCUMENT)

    async def chat(self, request: Request) -> ASGIApp:
        """GET /: the chat page."""
        return self._file("index.html")

    async def docs(self, request: Request) -> ASGIApp:
        """GET /docs: the OpenAPI document as a page."""
        return self._file("docs.html")

    async def asset(self, request: Request) -> ASGIApp:
        """GET /page/{name}: a file that the pages load."""
        return self._file(request.path_params["name"])

    async def openapi(self, request: Request) -> ASGIApp:
        """GET /openapi.json: the OpenAPI document."""
        return Response(self.document, headers=HEADERS, media_type="application/json")

    def _file(self, name: str) -> Response:
        if name not in self.files:
            raise NotFound("page")
        media_type = MEDIA_TYPES[Path(name).suffix]
        return Response(self.files[name], headers=HEADERS, media_type=media_type)
