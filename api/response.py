"""Responses in one piece: JSON, and errors with extra headers. Knows no generations."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from api.errors import ErrorShape, error_headers
from shared.errors import RequestError
from shared.text.large import encode_json


def error_response(error: RequestError, shape: ErrorShape, headers: Mapping[str, str]) -> Response:
    """Return an error response with extra headers.

    An error without extra headers is raised instead; api/edge/error_boundary.py answers it.
    """
    shaped = shape(error)
    response = Response(shaped.body, shaped.status or error.status, headers)
    del response.headers["content-length"]  # `error_headers` has it
    response.raw_headers += [*error_headers(error, shaped), *shaped.headers]
    return response


def json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response that caches must not store: the state of a generation changes."""
    return _json_response(msgspec.json.encode(content), status, headers)


async def long_json_response(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """As `json_response`, for content with long strings: they are encoded in slices."""
    return _json_response(await encode_json(content), status, headers)


def _json_response(body: bytes, status: int, headers: Mapping[str, str] | None) -> Response:
    all_headers = {"cache-control": "no-store", **(headers or {})}
    return Response(body, status, all_headers, media_type="application/json")
