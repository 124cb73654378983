"""Accepts a prompt in any dialect, over HTTP and on sockets, and finds its generation.

    accept_post      a POST: credentials, draining, idempotency key, body, then `accept_members`
    accept_members   the members of a body or of a frame: check, accept, find
    find_accepted    the meta of an accepted prompt

The checks always come in this order, so that a request with two mistakes always gets the same
answer. Knows no dialect: each dialect brings a function that reads the members.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest

from api.deadline import answer_deadline
from api.intake.arriving_body import Buffer, read_body
from api.intake.body import check_idempotency_key, check_members
from api.intake.dialect_request import DialectRequest, DialectRequestT
from api.intake.large_body import generation_in_steps, read_members
from api.intake.time_limit_members import with_timeout_header
from api.node import Node
from api.readers.lookup import find_generation
from api.readers.place import take_place
from api.transport.extensions import ALLOWANCE, GENERATION_ID
from shared.config.credentials import Identity
from shared.log.records import Meta
from shared.queue.accept import Accepted
from shared.queue.allowance import Allowance


async def accept_post(
    node: Node,
    request: HttpRequest,
    parse: Callable[[dict[str, Any]], DialectRequestT],
    *,
    is_any_type: bool = False,
    complete: Callable[[DialectRequestT, Identity], Awaitable[DialectRequestT]] | None = None,
    read_form: Callable[[Headers, Buffer], Awaitable[dict[str, Any]]] | None = None,
    needs_request: bool = False,
) -> tuple[Meta, DialectRequestT]:
    """Accept the prompt of a POST, or find what the same Idempotency-Key has created.

    Args:
        parse: reads the members of the body, without those that are null. It may set members that
            all dialects share (`session`, …) where its clients use other names for them.
        is_any_type: read the body as JSON, whatever its content type.
        complete: is given the result of `parse` and who asks, and adds what only Redis knows.
        read_form: reads a multipart/form-data body into members without null. None: such a body is
            answered with 415.
        needs_request: put the request into the returned meta, because the answer repeats it.

    Raises:
        RequestError: the request was refused.
        Unavailable: Redis did not answer in time.
    """
    identity = node.identity(request)
    node.refuse_while_draining()
    key = request.headers.get("idempotency-key")
    if key is not None:
        check_idempotency_key(key)
    bytes_max = node.settings.body_bytes_max
    is_form = read_form is not None and _is_form(request.headers)
    async with node.bodies.body() as hold:
        raw = await read_body(
            request.headers, request.receive,
            bytes_max=bytes_max, hold=hold, is_any_type=is_any_type or is_form,
        )  # fmt: skip
        size = len(raw)
        async with node.bodies.turn(size):
            if read_form is not None and is_form:
                members = await read_form(request.headers, raw)
            else:
                members = await read_members(node.large, raw, bytes_max=bytes_max)
            members = with_timeout_header(members, request.headers)
            parsed = await node.large.step(size, lambda: parse(members))
            if complete is not None:
                parsed = await complete(parsed, identity)
            if parsed.is_answered_from_log:
                await take_place(request.scope)
            meta = None if key else parsed.repeated
            meta = meta or await accept_members(
                node, identity, members, parsed,
                size=size, idempotency_key=key or parsed.idempotency_key,
                needs_request=needs_request,
                note=note_allowance(request),
            )  # fmt: skip
            request.scope[GENERATION_ID] = meta.generation_id
            return meta, parsed


async def accept_members(
    node: Node,
    identity: Identity,
    members: Mapping[str, Any],
    parsed: DialectRequest,
    *,
    size: int,
    idempotency_key: str = "",
    needs_request: bool = False,
    note: Callable[[Allowance], None] | None = None,
) -> Meta:
    """Accept a prompt whose members a dialect has read; return the generation.

    Args:
        members: of the body or frame, without those that are null. The members that all dialects
            share are read here.
        parsed: what the dialect has read from them.
        size: bytes of the body or frame; the work on large ones is done one at a time.
        needs_request: put the request into the returned meta.
        note: as of `Acceptance.accept`.

    Raises:
        RequestError: the prompt was refused.
        Unavailable: Redis did not answer in time.
    """
    new = await generation_in_steps(
        node.large,
        size,
        lambda: check_members(
            members,
            parsed.request,
            owner=identity.owner,
            models=node.models,
            settings=node.settings,
            idempotency_key=idempotency_key,
            grace_s=parsed.grace_s,
        ),
    )
    is_read = parsed.is_answered_from_log
    accepted = await node.acceptance.accept(new, identity, is_read=is_read, note=note)
    meta = await find_accepted(node, identity.owner, accepted, is_read=is_read)
    # A repeat with another request was refused, so the request need not be read from Redis.
    return replace(meta, request=new.request) if needs_request else meta


async def find_accepted(
    node: Node, owner: str, accepted: Accepted, *, is_read: bool = True
) -> Meta:
    """Return the meta of an accepted prompt; read Redis only where the prompt is not new.

    Args:
        is_read: the caller will read the log. Such callers share one read of the meta.

    Raises:
        NotFound: the generation of a repeated key has been deleted or lost.
        Unavailable: Redis did not answer in time.
    """
    if accepted.meta is not None:
        return accepted.meta
    async with answer_deadline():
        return await find_generation(
            node.hub, node.store, owner, accepted.generation_id, is_reader=is_read
        )


def note_allowance(request: HttpRequest) -> Callable[[Allowance], None]:
    """Return a function that keeps the rest of an owner's limits, for the headers of the answer."""
    return functools.partial(request.scope.__setitem__, ALLOWANCE)


def _is_form(headers: Headers) -> bool:
    media_type = headers.get("content-type", "").partition(";")[0]
    return media_type.strip().lower() == "multipart/form-data"
