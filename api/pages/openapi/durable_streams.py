"""The part of the OpenAPI document about Durable Streams. Data only.

The query `live` is not declared: its answers last, and the page of the dialect describes them.
Source: docs/dialects/durable-streams.md.
"""

from __future__ import annotations

from typing import Any

from api.pages.openapi.schemas import (
    HEADERS_OF_ERRORS,
    ID,
    SHARED,
    STRING,
    Json,
    answer,
    content,
    errors,
    parameter,
)

ANY_TYPE: Json = {"*/*": {}}
NEXT: Json = {
    "description": "The offset behind the bytes.",
    "schema": {"type": "string", "pattern": "^[0-9]{16}_[0-9]{16}$"},
}
OFFSET = parameter(
    "offset",
    "query",
    "`-1`: from the start; `now`: the end; else `Stream-Next-Offset` of a response. With `live` "
    "(`long-poll` or `sse`) the read waits for more.",
    {"type": "string", "pattern": "^(-1|now|[0-9]{16}_[0-9]{16})$"},
)
PATH: Json = parameter("path", "path", "The stream.", {"type": "string", "minLength": 1})
BODY: Json = {"content": {"application/octet-stream": {"schema": STRING}}}
CLOSED: Json = parameter(
    "Stream-Closed", "header", "`true`: no append follows.", {"type": "string", "enum": ["true"]}
)
REFUSED = ("stream_request_invalid", "request_timeout", "bodies_full", *SHARED)
READ_ERRORS = (
    "stream_request_invalid", "offset_invalid", "not_found", "stream_gone", "offset_lost",
    "expired", "too_many_connections", "draining", *SHARED,
)  # fmt: skip


def read(name: str, summary: str, parameter_of_path: Json) -> Json:
    """Return the operation of a GET."""
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [parameter_of_path, OFFSET],
        "responses": {
            "200": {
                "description": "The bytes, or a JSON array.",
                "headers": {"Stream-Next-Offset": NEXT},
                "content": ANY_TYPE,
            },
            "204": answer("A long poll: nothing came."),
            "304": answer("The ETag of `If-None-Match` is that of these bytes."),
            **errors(*READ_ERRORS),
        },
    }


SUBSCRIPTION: Json = parameter(
    "id", "path", "The subscription.", {"type": "string", "minLength": 1, "maxLength": 256}
)
LINKED: Json = parameter("path", "path", "The stream.", {"type": "string", "minLength": 1})
OBJECT_BODY: Json = {"content": content({"type": "object"})}


def control(name: str, summary: str, method: str, *parameters: Json, **more: Any) -> Json:
    """Return a path item of a subscription with one method; its errors have the protocol's form."""
    answers = {
        status: {"description": text, "content": content({"type": "object"})}
        for status, text in (
            ("400", "`INVALID_REQUEST`, or the body is no JSON."), ("401", "`TOKEN_INVALID`"),
            ("403", "`forbidden`"), ("404", "`SUBSCRIPTION_NOT_FOUND`"), ("408", "Too slow."),
            ("409", "`FENCED`, `ALREADY_CLAIMED`, `NO_PENDING_WORK`, `INVALID_OFFSET`"),
            ("413", "Too large."), ("415", "The encoding."), ("422", "No object."),
            ("503", "`unavailable`"),
        )
    }  # fmt: skip
    answers["401"]["headers"] = HEADERS_OF_ERRORS[401] if not more.get("security") == [] else {}
    done: Json = {
        "200": {"description": "Done.", "content": content({"type": "object"})},
        "201": {"description": "Created.", "content": content({"type": "object"})},
        "204": answer("Done."),
    }
    described = {"operationId": name, "summary": summary, "parameters": [SUBSCRIPTION, *parameters]}
    return {method: {**described, "responses": {**done, **answers}, **more}}


_BELOW = "/ds/v1/stream/__ds"
_ONE = _BELOW + "/subscriptions/{id}"
CONTROL: Json = {
    _BELOW + "/jwks.json": {
        "get": {
            "operationId": "readStreamKeys",
            "summary": "The public key of the webhooks of subscriptions.",
            "security": [],
            "responses": {
                "200": {
                    "description": "A JSON web key set.",
                    "content": content({"type": "object"}, "application/jwk-set+json"),
                },
                **errors("unavailable"),
            },
        }
    },
    _ONE: {
        **control("getStreamSubscription", "Show a subscription.", "get"),
        **control(
            "createStreamSubscription", "Subscribe to streams: a webhook, or pull-wake.", "put",
            requestBody=OBJECT_BODY,
        ),
        **control("deleteStreamSubscription", "End a subscription.", "delete"),
    },
    _ONE + "/streams": control(
        "linkStreams", "Add streams to a subscription.", "post", requestBody=OBJECT_BODY
    ),
    _ONE + "/streams/{path}": control("unlinkStream", "Take a stream out.", "delete", LINKED),
    _ONE + "/claim": control(
        "claimWake", "Take the work of a pull-wake subscription.", "post", requestBody=OBJECT_BODY
    ),
    **{
        f"{_ONE}/{what}": control(
            name, summary, "post", requestBody=OBJECT_BODY, security=[]
        )
        for what, name, summary in (
            ("callback", "acknowledgeWebhook", "Acknowledge offsets after a webhook."),
            ("ack", "acknowledgeWake", "Acknowledge offsets after a claim."),
            ("release", "releaseWake", "Give a claim back."),
        )
    },
}  # fmt: skip

PATHS: Json = {
    **CONTROL,
    "/ds/v1/stream/generations/{id}": {
        "get": read("readGenerationStream", "Read a generation as a stream of JSON.", ID),
    },
    "/ds/v1/stream/{path}": {
        "get": read("readStream", "Read a stream of one's own.", PATH),
        "put": {
            "operationId": "createStream",
            "summary": "Create a stream, or a fork of one.",
            "parameters": [
                PATH, CLOSED,
                parameter("Stream-TTL", "header", "Seconds.", {"type": "integer", "minimum": 0}),
                parameter("Stream-Forked-From", "header", "The path of the source.", STRING),
            ],
            "requestBody": BODY,
            "responses": {
                "200": {"description": "It exists.", "headers": {"Stream-Next-Offset": NEXT}},
                "201": {"description": "Created.", "headers": {"Stream-Next-Offset": NEXT}},
                **errors(
                    "invalid_json", "not_found", "stream_exists", "content_type_mismatch",
                    "body_too_large", "streams_full", "unsupported_media_type", "invalid_request",
                    *REFUSED,
                ),
            },
        },
        "post": {
            "operationId": "appendToStream",
            "summary": "Append to a stream, close it, or both.",
            "parameters": [
                PATH, CLOSED,
                parameter("Stream-Seq", "header", "Must rise.", STRING),
                parameter("Producer-Id", "header", "With the two others, or without.", STRING),
                parameter("Producer-Epoch", "header", "Rises with each start.", STRING),
                parameter("Producer-Seq", "header", "0, 1, 2 … in an epoch.", STRING),
            ],
            "requestBody": BODY,
            "responses": {
                "200": {"description": "Appended.", "headers": {"Stream-Next-Offset": NEXT}},
                "204": {
                    "description": "Appended, closed, or a repeat.",
                    "headers": {"Stream-Next-Offset": NEXT},
                },
                **errors(
                    "invalid_json", "producer_stale", "not_found", "stream_closed",
                    "content_type_mismatch", "stream_seq_conflict", "sequence_gap", "stream_gone",
                    "body_too_large", "streams_full", "unsupported_media_type", "invalid_request",
                    *REFUSED,
                ),
            },
        },
        "delete": {
            "operationId": "deleteStream",
            "summary": "Delete a stream; its forks keep what they read.",
            "parameters": [PATH],
            "responses": {
                "204": answer("Deleted."),
                **errors("stream_request_invalid", "not_found", "stream_gone", *SHARED),
            },
        },
    },
}  # fmt: skip
