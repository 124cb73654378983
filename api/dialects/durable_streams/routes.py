"""One stream over HTTP: create, append, read, delete.

Every handler works on the streams of the owner whose credentials the request carries; the streams
of others do not exist for it.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.types import ASGIApp

from api.deadline import answer_deadline
from api.dialects.durable_streams.live import (
    READ_BYTES,
    EventStream,
    LiveRequest,
    LiveStreams,
    wait_for_change,
)
from api.dialects.durable_streams.notices import Notices
from api.dialects.durable_streams.replies import (
    NOT_CACHED,
    SECURITY,
    append_refusal,
    etag_of,
    page_reply,
    place_headers,
    refusal_of,
    reply,
)
from api.dialects.durable_streams.request import (
    AppendHeaders,
    CreateHeaders,
    ReadQuery,
    check_path,
    invalid,
    read_append,
    read_create,
    read_query,
)
from api.dialects.durable_streams.tails import Tails
from api.intake.arriving_body import read_body
from api.intake.strict_json import decode_json
from api.node import Node
from api.readers.expiry import wait_s_max
from api.readers.place import take_place
from api.transport.extensions import IDENTITY
from shared.errors import RequestError
from shared.streams.content import JSON_TYPE, flatten, is_text, join, media_of, split_values
from shared.streams.place import ZERO
from shared.streams.record import Outcome, StreamInfo
from shared.streams.store import ForkPoint, NewStream, Reading, StreamStore, owner_of
from shared.streams.subscriptions import Subscriptions
from shared.streams.sweep import note_owner, sweep_owner

FORK_DEPTH_MAX = 16


class StreamRoutes:
    """The handlers of /ds/v1/stream/{path}."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.store = StreamStore(node.redis, node.settings, node.store.scripts.pipeline)
        self.live = LiveStreams(node.hub, self.store, Tails(node.hub, self.store))
        self.subscriptions = Subscriptions(self.store)
        self.notices = Notices(self.subscriptions, lambda errand: node.hub.spawn(errand))

    # Create

    async def create(self, request: Request) -> ASGIApp:
        """PUT."""
        owner, path = self._stream_of(request)
        asked = read_create(
            request.headers, life_s_max=self.node.settings.stream_life_days_max * 86_400
        )
        raw = await self._body(request)
        async with answer_deadline():
            point, media = None, asked.media
            if asked.source:
                found = await self._fork_point(owner, asked)
                if isinstance(found, str):
                    return refusal_of(found)
                point, prefix = found
                media = media or point.source.media
            new = NewStream(
                content_type=asked.content_type,
                media=asked.media,
                ttl_s=asked.ttl_s,
                expires_at=asked.expires_at,
                expires_ms=asked.expires_ms,
                is_closed=asked.is_closed,
                data=await self._stored(media, raw, may_be_empty=True),
                source=asked.source,
                fork=asked.fork,
                fork_point=point,
                sub_offset=asked.sub_offset,
                prefix=prefix if point else b"",
            )
            outcome = await self._create(owner, path, new)
        if outcome.tail is None:
            return refusal_of(outcome.kind, detail=outcome.detail)
        headers = place_headers(outcome.tail, is_closed=outcome.is_closed)
        if outcome.kind == "created":
            path_text = quote(request.scope["path"])
            headers["location"] = str(request.url.replace(path=path_text, query=""))
            if outcome.subscriptions:
                self.notices.give(owner, path, is_new=True)
        status = 201 if outcome.kind == "created" else 200
        return reply(status, headers, media=outcome.detail)

    async def _create(self, owner: str, path: str, new: NewStream) -> Outcome:
        await note_owner(self.store, owner)
        outcome = await self.store.create(owner, path, new)
        while outcome.kind == "expired":
            await self.store.delete(owner, path, only_expired=True)
            outcome = await self.store.create(owner, path, new)
        if outcome.kind == "full" and await sweep_owner(self.store, owner):
            outcome = await self.store.create(owner, path, new)
        return outcome

    async def _fork_point(self, owner: str, asked: CreateHeaders) -> tuple[ForkPoint, bytes] | str:
        """Return where a fork begins, and the part of the next entry that it takes.

        Returns:
            A kind of refusal instead.

        Raises:
            RequestError: 400, the offset or the sub-offset is not in the source.
        """
        looked = await self.store.look(owner, asked.source)
        source = looked.info
        if source is None:
            return "source gone" if looked.state == "gone" else "no source"
        if len(source.parents) >= FORK_DEPTH_MAX:
            return "source deep"
        place = asked.fork or source.tail
        if asked.fork is not None and (
            place.end > source.tail.end
            or not await self.store.has_place(owner, asked.source, source, place)
        ):
            raise invalid("Stream-Fork-Offset is not an offset of the source")
        point = ForkPoint(source, place)
        if not asked.sub_offset:
            return point, b""
        reading = await self.store.read(owner, asked.source, place, bytes_max=1)
        return point, _prefix_of(reading, source, asked.sub_offset)

    # Append

    async def append(self, request: Request) -> ASGIApp:
        """POST."""
        owner, path = self._stream_of(request)
        asked = read_append(request.headers)
        raw = await self._body(request)
        if not raw and not asked.closes:
            raise invalid("the body is empty: send bytes, or Stream-Closed: true")
        if raw and not asked.content_type:
            raise invalid("send the Content-Type of the stream")
        media = media_of(asked.content_type) if raw else ""
        async with answer_deadline():
            try:
                data = await self._stored(media, raw)
            except RequestError as exc:
                return await self._refusal(owner, path, media, exc)
            outcome = await self.store.append(
                owner,
                path,
                data,
                media=media,
                closes=asked.closes,
                stream_seq=asked.stream_seq,
                producer=asked.producer,
            )
        if outcome.subscriptions and raw:
            self.notices.give(owner, path)
        return _append_reply(outcome, asked, has_body=bool(raw))

    async def _refusal(self, owner: str, path: str, media: str, error: RequestError) -> ASGIApp:
        """Return the refusal of a body that is not JSON: the state of the stream comes first.

        Raises:
            RequestError: `error`, the stream would take this media type.
        """
        reading = await self.store.look(owner, path)
        info = reading.info
        if info is None:
            return refusal_of(reading.state)
        if info.is_closed:
            return append_refusal(Outcome("closed", info.tail), 0)
        if info.media != media:
            return refusal_of("type")
        raise error

    # Read

    async def read(self, request: Request) -> ASGIApp:
        """GET and HEAD."""
        owner, path = self._stream_of(request)
        query = read_query(request.query_params)
        if request.method == "HEAD":
            return await self._head(owner, path)
        async with answer_deadline():
            if query.place is None or query.live == "sse":
                reading = await self.store.look(owner, path, is_use=True)
            else:
                reading = await self.store.read(owner, path, query.place, bytes_max=READ_BYTES)
        info = reading.info
        if reading.state != "live" or info is None:
            return refusal_of(reading.state)
        if query.live == "sse":
            return await self._event_stream(owner, path, query, info)
        if query.place is None:
            reading = reading._replace(after=info.tail)
        if query.live and not reading.entries and not info.is_closed:
            reading = await self._poll(request, owner, path, query, reading)
            if reading.info is None:
                return refusal_of(reading.state)
        return _page(request, query, reading)

    async def _head(self, owner: str, path: str) -> ASGIApp:
        async with answer_deadline():
            reading = await self.store.look(owner, path)
        info = reading.info
        if info is None:
            return refusal_of(reading.state)
        headers = place_headers(info.tail, is_closed=info.is_closed)
        headers["cache-control"] = NOT_CACHED
        headers["etag"] = etag_of("-1", info.tail, is_closed=info.is_closed)
        if info.ttl_s:
            headers["stream-ttl"] = info.ttl_s
        if info.expires_at:
            headers["stream-expires-at"] = info.expires_at
        return reply(200, headers, media=info.content_type)

    async def _event_stream(
        self, owner: str, path: str, query: ReadQuery, info: StreamInfo
    ) -> ASGIApp:
        place = info.tail if query.place is None else query.place
        if place not in (ZERO, info.tail):  # a lost place is refused before the answer begins
            async with answer_deadline():
                reading = await self.store.read(owner, path, place, bytes_max=1)
            if reading.state != "live":
                return refusal_of(reading.state)
        headers = {
            **SECURITY, "content-type": "text/event-stream",
            "cache-control": "no-cache, no-store, no-transform", "x-accel-buffering": "no",
        }  # fmt: skip
        if not is_text(info.media):
            headers["stream-sse-data-encoding"] = "base64"
        return EventStream(self.live, LiveRequest(owner, path, info, place, query.cursor), headers)

    async def _poll(
        self, request: Request, owner: str, path: str, query: ReadQuery, reading: Reading
    ) -> Reading:
        """Wait for more, and read again."""
        assert reading.info is not None
        await take_place(request.scope)
        wait_s = min(self.node.settings.stream_poll_s, wait_s_max(request.scope.get(IDENTITY)))
        waiting = LiveRequest(owner, path, reading.info, reading.after, query.cursor)
        found = await wait_for_change(self.live, waiting, request.receive, wait_s)
        if found is not None:
            return found
        async with answer_deadline():
            return await self.store.read(owner, path, reading.after, bytes_max=READ_BYTES)

    # Delete

    async def delete(self, request: Request) -> ASGIApp:
        """DELETE."""
        owner, path = self._stream_of(request)
        async with answer_deadline():
            outcome = await self.store.delete(owner, path)
            await self.subscriptions.forget_stream(owner, path)
        if outcome in ("deleted", "hidden"):
            return reply(204)
        return refusal_of(outcome)

    # Common

    def _stream_of(self, request: Request) -> tuple[str, str]:
        """Return the digest of the owner, and the path of the stream."""
        owner = owner_of(self.node.owner(request))
        return owner, check_path(request.path_params["path"])

    async def _body(self, request: Request) -> bytes:
        node = self.node
        async with node.bodies.body() as hold:
            raw = await read_body(
                request.headers, request.receive,
                bytes_max=node.settings.stream_append_bytes_max, hold=hold, is_any_type=True,
            )  # fmt: skip
            return bytes(raw)

    async def _stored(self, media: str, raw: bytes, *, may_be_empty: bool = False) -> bytes:
        """Return the bytes of an entry as they are stored.

        Raises:
            RequestError: 400, JSON mode, and the body is not JSON or is an empty array.
        """
        if media != JSON_TYPE or not raw:
            return raw
        await self.node.large.step(len(raw), lambda: decode_json(raw))
        values = flatten(raw)
        if not values and not may_be_empty:
            raise invalid("the array is empty: send at least one value")
        return values


def _prefix_of(reading: Reading, source: StreamInfo, count: int) -> bytes:
    """Return the first values, or bytes, of the entry behind a fork point."""
    if not reading.entries:
        raise invalid("Stream-Fork-Sub-Offset: the source has no entry behind this offset")
    data = reading.entries[0].data
    if source.media != JSON_TYPE:
        if count > len(data):
            raise invalid(f"Stream-Fork-Sub-Offset: the entry has {len(data)} bytes")
        return data[:count]
    values = split_values(data)
    if count > len(values):
        raise invalid(f"Stream-Fork-Sub-Offset: the entry has {len(values)} values")
    return b",".join(values[:count])


def _append_reply(outcome: Outcome, asked: AppendHeaders, *, has_body: bool) -> ASGIApp:
    producer = asked.producer
    if outcome.kind not in ("ok", "duplicate") or outcome.tail is None:
        return append_refusal(outcome, producer.seq if producer else 0)
    headers = place_headers(outcome.tail, is_closed=outcome.is_closed)
    if producer is not None:
        is_repeat = outcome.kind == "duplicate"
        headers["producer-epoch"] = str(producer.epoch)
        headers["producer-seq"] = outcome.detail if is_repeat else str(producer.seq)
        return reply(204 if is_repeat or not has_body else 200, headers)
    return reply(204, headers)


def _page(request: Request, query: ReadQuery, reading: Reading) -> ASGIApp:
    """Return the response of a catch-up read, or of a long poll that is over."""
    info = reading.info
    assert info is not None
    return page_reply(
        request.headers.get("if-none-match", ""),
        query,
        reading.after,
        join(info.media, (entry.data for entry in reading.entries)),
        has_entries=bool(reading.entries),
        is_at_tail=reading.is_at_tail,
        is_closed=info.is_closed and reading.is_at_tail,
        content_type=info.content_type,
    )
