"""Bad bodies of every kind get an error in the form of their call, and never a defect."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from api.dialects.grpc.forms import FORMS
from api.dialects.grpc.generated import tailrace_pb2 as pb
from api.dialects.grpc.routes import SERVICE, with_deadline
from api.dialects.grpc.wire import frame
from tests.support.shell import ALICE, Shell

METHODS = ("Generate", "Start", "Attach", "Get", "Cancel", "Session")
STREAMS = ("Generate", "Attach")
INFINITE = pb.GenerateRequest(prompt="x")
INFINITE.params.update({"temperature": float("nan")})
REQUESTS = ("JSON", "base64", "a negative time", "a late time")
BODIES = {
    "nothing": b"",
    "an empty frame": frame(b""),
    "bytes": b"\xff" * 40,
    "a frame of bytes": frame(b"\xff" * 40),
    "two frames": frame(b"") * 2,
    "a compressed frame": frame(b"x", 1),
    "a frame that is too long": b"\0\xff\xff\xff\xff",
    "base64": base64.b64encode(frame(b"\x0a\x01x")),
    "JSON": b'{"id":"x","prompt":"y","session":"z"}',
    "JSON in a frame": frame(b'{"id":5,"prompt":[],"session":{}}'),
    "deep JSON": b"[" * 5_000,
    "null": b"null",
    "a number that JSON does not have": frame(INFINITE.SerializeToString()),
    "a negative time": frame(pb.SessionRequest(session="s", before=-(2**63)).SerializeToString()),
    "a late time": pb.SessionRequest(session="s", before=2**63 - 1).SerializeToString(),
}


@pytest.fixture
async def shell() -> AsyncIterator[Shell]:
    shell = Shell()
    yield shell
    await shell.client.aclose()
    await shell.redis.aclose()


@pytest.mark.parametrize("method", METHODS)
async def test_no_body_is_a_defect(shell: Shell, method: str) -> None:
    for content_type in (*FORMS, "text/plain", "application/grpc", ""):
        form = FORMS.get(content_type)
        for name, body in BODIES.items():
            if method in STREAMS and form is not None and name in REQUESTS:
                continue  # a good request: nobody ends its stream here
            headers = {**ALICE, "content-type": content_type}
            path = f"{SERVICE}/{method}"
            answer = await shell.client.post(path, content=body, headers=headers)
            told = (content_type, name, answer.content[:300])
            assert answer.status_code < 500, told
            assert b"internal" not in answer.content, told
            assert b"grpc-status: 13" not in answer.content, told


@pytest.mark.parametrize(
    ("fields", "deadline"),
    [
        ({}, 2.0),
        ({"deadline_s": 1.5}, 1.5),
        ({"deadline_s": 9}, 2.0),
        ({"deadline_s": -1}, -1),
        ({"deadline_s": "Infinity"}, "Infinity"),
    ],
)
def test_the_shorter_deadline_counts(fields: dict[str, object], deadline: object) -> None:
    assert with_deadline(fields, 2.0)["deadline_s"] == deadline
