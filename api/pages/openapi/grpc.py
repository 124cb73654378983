"""The part of the OpenAPI document about gRPC-Web and Connect. Data only.

The messages are those of proto/tailrace/v1/tailrace.proto, which describes them better than a
schema can. Source: docs/dialects/grpc.md.
"""

from __future__ import annotations

from api.pages.openapi.schemas import OBJECT, Json, content

BINARY: Json = {"type": "string", "format": "binary"}
UNARY = ("application/proto", "application/grpc-web+proto", "application/grpc-web-text+proto")
STREAMED = (
    "application/connect+proto", "application/connect+json", "application/grpc-web+proto",
    "application/grpc-web-text+proto",
)  # fmt: skip
# The statuses of Connect's calls with one answer. All others answer 200, with the status inside.
STATUSES = ("400", "401", "403", "404", "415", "429", "500", "501", "503", "504")


def _method(name: str, summary: str, *, is_stream: bool) -> Json:
    body: Json = {}
    for media_type in STREAMED if is_stream else UNARY:
        body |= content(BINARY, media_type)
    if not is_stream:
        body |= content(OBJECT)
    failed = {"description": "An error in the form of the call.", "content": content(OBJECT)}
    return {
        "post": {
            "operationId": f"grpc{name}",
            "summary": summary,
            "requestBody": {"required": True, "content": body},
            "responses": {
                "200": {"description": "The answer, or the stream.", "content": body},
                **dict.fromkeys(STATUSES, failed),
            },
        }
    }


PATHS: Json = {
    f"/tailrace.v1.Tailrace/{name}": _method(name, f"gRPC-Web and Connect: {what}", is_stream=many)
    for name, what, many in (
        ("Generate", "start a generation and stream its answer.", True),
        ("Start", "start a generation.", False),
        ("Attach", "stream an answer after a cursor.", True),
        ("Get", "a generation, with its text so far.", False),
        ("Cancel", "end a generation.", False),
        ("Session", "the generations of a session.", False),
    )
}
