"""A POST that starts a generation, as every dialect does it: who, what, accepted, found again.

The checks come in one order, so that the answer to a request that is wrong twice is always the
same: credentials, draining, idempotency key, body. Knows no dialect: each brings its own reading
of the body's members.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest

from api.intake.body import check_idempotency_key, new_generation, read_body, read_object
from api.intake.dialect_request import DialectRequestT
from api.node import Node, answering
from shared.log.records import Meta


async def start(
    node: Node,
    request: HttpRequest,
    parse: Callable[[dict[str, Any]], DialectRequestT],
    *,
    is_any_type: bool = False,
    complete: Callable[[DialectRequestT, str], Awaitable[DialectRequestT]] | None = None,
    read_form: Callable[[Headers, bytes], Awaitable[dict[str, Any]]] | None = None,
    needs_request: bool = False,
) -> tuple[Meta, DialectRequestT]:
    """Accept what a POST asks for, or find what the same Idempotency-Key has started.

    Args:
        parse: is given the body's members, null ones left out. It may set those that all dialects
            have in common (`session`, …) where its clients say them in other words.
        is_any_type: the body is JSON whatever its content type says.
        complete: is given what `parse` returned and the owner; for what only the store can say.
        read_form: reads a body of type multipart/form-data into members; None: that is 415.
        needs_request: the answer says the request back: the meta that is returned has it.

    Raises:
        RequestError, Unavailable.
    """
    owner = node.owner(request)
    node.refuse_while_draining()
    key = request.headers.get("idempotency-key")
    if key is not None:
        check_idempotency_key(key)
    bytes_max = node.settings.body_bytes_max
    is_form = read_form is not None and _is_form(request.headers)
    raw = await read_body(
        request.headers, request.receive, bytes_max=bytes_max, is_any_type=is_any_type or is_form
    )
    sent = await read_form(request.headers, raw) if read_form is not None and is_form else raw
    large, size = node.large, len(raw)
    body = await large.step(size, lambda: read_object(sent, bytes_max=bytes_max))
    asked = await large.step(size, lambda: parse(body))
    if complete is not None:
        asked = await complete(asked, owner)
    new = await large.step(
        size,
        lambda: new_generation(
            body,
            asked.request,
            owner=owner,
            models=node.models,
            settings=node.settings,
            idempotency_key=key or "",
            grace_s=asked.grace_s,
        ),
    )
    accepted = await node.accept(new, is_read=asked.is_read)
    async with answering():
        meta = accepted.meta or await node.meta(accepted.generation_id, owner)
    # A repeat means the same, or it would have been refused: no need to read it from Redis.
    return replace(meta, request=new.request) if needs_request else meta, asked


def _is_form(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0]
    return media_type.strip().lower() == "multipart/form-data"
