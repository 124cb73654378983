"""The methods of `tailrace.v1.Tailrace`, over gRPC, gRPC-Web and Connect.

Each method is a POST at its path. The form of the call (forms.py) decides how its message is read
and how its answer is written; what it does is the same in all of them, and the same as the native
route does. Source: docs/dialects/grpc.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dialects.grpc.fold import GrpcFold
from api.dialects.grpc.forms import Form, choose_form, unreadable
from api.dialects.grpc.installed import messages
from api.dialects.grpc.timeouts import read_deadline_s
from api.dialects.native.routes import GenerationRoutes
from api.dialects.prompt import find_accepted, note_allowance
from api.hub.relay import Relay
from api.intake.arriving_body import Buffer, read_body
from api.intake.body import CheckedMembers, check_idempotency_key, check_native, invalid_request
from api.intake.large_body import generation_in_steps
from api.intake.time_limit_members import with_timeout_header
from api.node import Node
from api.readers.http_stream import Beginning, stream
from api.readers.lookup import find_generation
from api.readers.place import take_place
from api.transport.extensions import GENERATION_ID
from shared.config.credentials import Identity
from shared.log.ids import START, EventId, parse_cursor
from shared.log.records import Meta
from shared.queue.accept import Accepted, NewGeneration

SERVICE = "/tailrace.v1.Tailrace"
SMALL_BYTES_MAX = 65_536  # of a request without a prompt
# Returns the native page of a session: its name, who asks, and `before`, Unix ms.
ListSession = Callable[[str, Identity, int | None], Awaitable[dict[str, Any]]]


class GrpcRoutes:
    """The handlers of the methods, except that of Session."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._generations = GenerationRoutes(node)

    async def generate(self, request: Request) -> ASGIApp:
        """Generate: accepts a prompt, and streams its answer."""
        form = choose_form(request.scope, is_stream=True)
        accepted, _, cursor = await self._accept(request, form, is_read=True)
        meta = await find_accepted(self.node, self.node.owner(request), accepted)
        request.scope[GENERATION_ID] = meta.generation_id
        return self._stream(meta, cursor, form)

    async def start(self, request: Request) -> ASGIApp:
        """Start: accepts a prompt."""
        form = choose_form(request.scope, is_stream=False)
        accepted, new, _ = await self._accept(request, form, is_read=False)
        fields = {
            "id": accepted.generation_id,
            "status": accepted.status,
            "model": new.model,
            "session": new.session,
            "priority": new.priority,
            "created_at": accepted.created_at_ms // 1000,
        }
        return answer(form, messages().generation_message(fields))

    async def attach(self, request: Request) -> ASGIApp:
        """Attach: streams an answer after a cursor."""
        form = choose_form(request.scope, is_stream=True)
        asked = await read_request(request, form, "Attach")
        cursor = parse_cursor(asked.cursor) if asked.cursor else START
        node = self.node
        meta = await find_generation(
            node.hub, node.store, node.identity(request), asked.id, cursor, is_reader=True
        )
        await take_place(request.scope)
        return self._stream(meta, cursor, form)

    async def get(self, request: Request) -> ASGIApp:
        """Get: the state of a generation."""
        form = choose_form(request.scope, is_stream=False)
        asked = await read_request(request, form, "Get")
        fields = await self._generations.fields_of(asked.id, self.node.identity(request))
        return answer(form, messages().generation_message(fields))

    async def cancel(self, request: Request) -> ASGIApp:
        """Cancel: ends a generation."""
        form = choose_form(request.scope, is_stream=False)
        asked = await read_request(request, form, "Cancel")
        meta = await self._generations.end(asked.id, self.node.identity(request))
        fields = {"id": meta.generation_id, "status": meta.status}
        return answer(form, messages().generation_message(fields))

    async def _accept(
        self, request: Request, form: Form, *, is_read: bool
    ) -> tuple[Accepted, NewGeneration, EventId]:
        """Accept the prompt of a GenerateRequest; return also its cursor."""
        node, identity = self.node, self.node.identity(request)
        node.refuse_while_draining()
        key = request.headers.get("idempotency-key")
        if key is not None:
            check_idempotency_key(key)
        # The deadline of Start is about its own answer, not about the generation.
        limit_s = read_deadline_s(request.headers) if is_read else None
        messages()  # a node that cannot read the body does not wait for it
        async with node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive,
                bytes_max=node.settings.body_bytes_max, hold=hold, is_any_type=True,
            )  # fmt: skip
            async with node.bodies.turn(len(raw)):
                fields, cursor = await node.large.step(len(raw), lambda: read_prompt(form, raw))
                fields = with_timeout_header(fields, request.headers)
                if limit_s is not None:
                    fields = with_deadline(fields, limit_s)

                def check() -> CheckedMembers:
                    return check_native(
                        fields, owner=identity.owner, models=node.models,
                        settings=node.settings, idempotency_key=key or "",
                    )  # fmt: skip

                new = await generation_in_steps(node.large, len(raw), check)
                if is_read:
                    await take_place(request.scope)
                accepted = await node.acceptance.accept(
                    new, identity, is_read=is_read, note=note_allowance(request)
                )
        return accepted, new, cursor

    def _stream(self, meta: Meta, cursor: EventId, form: Form) -> ASGIApp:
        dialect = form.dialect
        assert dialect is not None

        async def begin(relay: Relay) -> Beginning:
            log = relay.encoded_log(dialect)
            head = log.opening or log.fold.opening()
            if relay.feed.is_ended and cursor == relay.feed.top:
                assert isinstance(log.fold, GrpcFold)
                head += log.fold.only_last()  # nothing else is left to send
            return Beginning(cursor=cursor, head=head)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"x-generation-id", meta.generation_id.encode())]
            await stream(
                self.node.hub, scope, receive, send,
                meta=meta, dialect=dialect, headers=headers, begin=begin,
            )  # fmt: skip

        return respond


class SessionMethod:
    """The handler of Session, which shows the listing of another layer.

    Args:
        list_session: returns the native listing.
    """

    def __init__(self, node: Node, list_session: ListSession) -> None:
        self.node = node
        self._list_session = list_session

    async def session(self, request: Request) -> ASGIApp:
        """Session: the generations of a session."""
        form = choose_form(request.scope, is_stream=False)
        asked = await read_request(request, form, "Session")
        identity = self.node.identity(request)
        page = await self._list_session(asked.session, identity, max(0, asked.before) or None)
        return answer(form, messages().session_message(page))


async def read_request(request: Request, form: Form, method: str) -> Any:
    """Return the message of a request without a prompt.

    Raises:
        RequestError: the body is no such message, or too large.
    """
    kind = messages().REQUESTS[method]
    raw = await read_body(
        request.headers, request.receive, bytes_max=SMALL_BYTES_MAX, is_any_type=True
    )
    return _message(form, raw, kind)


def read_prompt(form: Form, raw: Buffer) -> tuple[dict[str, Any], EventId]:
    """Return the members of a native body, and the cursor, of a GenerateRequest.

    Raises:
        RequestError: 400 no such message, or a bad cursor; 422 a number that JSON does not have.
    """
    module = messages()
    asked = _message(form, raw, module.REQUESTS["Generate"])
    cursor = parse_cursor(asked.cursor) if asked.cursor else START
    try:
        return module.new_generation_fields(asked), cursor
    except module.CONVERSION_ERRORS as exc:
        raise invalid_request(f"a value cannot be read: {exc}"[:300]) from None


def with_deadline(fields: dict[str, Any], limit_s: float) -> dict[str, Any]:
    """Return the members with the deadline of the call, if it is the shorter one.

    An infinite `deadline_s` is a word in protobuf's JSON; it is refused with the other members.
    """
    given = fields.get("deadline_s", limit_s)
    return {
        **fields,
        "deadline_s": min(limit_s, given) if isinstance(given, int | float) else given,
    }


def _message(form: Form, raw: Buffer, kind: Any) -> Any:
    try:
        return messages().read_message(kind, bytes(form.message_in(raw)), is_json=form.is_json)
    except ValueError as exc:
        raise unreadable(str(exc)) from None


def answer(form: Form, message: Any) -> Response:
    """Return the response with one message."""
    encoded = messages().encode_message(message, is_json=form.is_json)
    headers = {"content-type": form.content_type.decode(), "cache-control": "no-store"}
    return Response(form.answer(encoded), 200, headers)
