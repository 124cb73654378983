"""OpenAI's Batch API by its own SDK, and what it lacks: events, dead letters, redrive."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.support.batch import (
    CHAT,
    by_id,
    chat_line,
    demo_line,
    encoded,
    ended,
    line,
    rows,
    submit,
    text_of,
)
from tests.support.raw_client import RawClient
from tests.support.sdk import sdk
from tests.support.wait import until

DEMO = {"demo": {"tokens": 5, "tokens_per_s": 0, "first_token_s": 0}}


@pytest.fixture
async def client(api: RawClient) -> AsyncIterator[openai.AsyncOpenAI]:
    async with sdk(f"{api.url}/v1", api.key) as client:
        yield client


async def errors_of(
    client: openai.AsyncOpenAI, content: bytes
) -> list[tuple[str | None, int | None]]:
    """Submit what is wrong; returns codes and lines."""
    batch = await ended(client, (await submit(client, content)).id)
    assert batch.status == "failed" and batch.failed_at
    assert batch.output_file_id is None and batch.error_file_id is None
    assert batch.request_counts is not None and batch.request_counts.total == 0
    assert batch.errors is not None and batch.errors.data is not None
    return [(error.code, error.line) for error in batch.errors.data]


# From the file to the output


async def test_a_batch_from_upload_to_output(client: openai.AsyncOpenAI) -> None:
    made = await submit(
        client, encoded(demo_line(n) for n in range(30)), metadata={"for": "a test"}
    )
    assert made.status in ("validating", "in_progress")
    assert made.endpoint == CHAT and made.completion_window == "24h"
    assert made.expires_at == made.created_at + 86_400

    batch = await ended(client, made.id)

    assert batch.status == "completed" and batch.object == "batch"
    assert batch.request_counts is not None and batch.usage is not None
    assert batch.request_counts.model_dump() == {"total": 30, "completed": 30, "failed": 0}
    assert batch.metadata == {"for": "a test"}
    assert batch.model
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.finalizing_at or 0)
    assert (batch.finalizing_at or 0) <= (batch.completed_at or 0)
    found = by_id(await rows(client, batch.output_file_id))
    assert found.keys() == {f"c{n}" for n in range(30)}
    bodies = [row["response"]["body"] for row in found.values()]
    assert {body["object"] for body in bodies} == {"chat.completion"}
    assert sum(body["usage"]["total_tokens"] for body in bodies) == batch.usage.total_tokens
    assert all(text_of(row) for row in found.values())
    assert {row["response"]["status_code"] for row in found.values()} == {200}
    assert {row["error"] for row in found.values()} == {None}
    assert len({row["id"] for row in found.values()}) == 30
    assert batch.error_file_id is None
    assert batch.output_file_id is not None
    output = await client.files.retrieve(batch.output_file_id)
    assert output.purpose == "batch_output"


async def test_a_line_of_the_output_has_the_answer_of_its_endpoint(
    client: openai.AsyncOpenAI,
) -> None:
    """The row of a line, and the same request asked directly: the same members."""
    direct = await client.chat.completions.create(
        model="demo", messages=[{"role": "user", "content": "tell me"}], extra_body=DEMO
    )
    content = encoded([chat_line(1, "tell me", model="demo", **DEMO)])
    batch = await ended(client, (await submit(client, content)).id)
    (row,) = await rows(client, batch.output_file_id)

    assert row["response"]["body"].keys() == json.loads(direct.to_json(exclude_unset=True)).keys()
    assert row["response"]["request_id"] == row["response"]["body"]["id"]


async def test_a_batch_may_use_the_responses_endpoint(client: openai.AsyncOpenAI) -> None:
    url = "/v1/responses"
    lines = [line(f"r{n}", {"input": f"tell me {n}", "instructions": "Be brief.", **DEMO}, url)
             for n in range(5)]  # fmt: skip
    batch = await ended(client, (await submit(client, encoded(lines), endpoint=url)).id)

    found = by_id(await rows(client, batch.output_file_id))
    assert found.keys() == {f"r{n}" for n in range(5)}
    for row in found.values():
        response = openai.types.responses.Response.model_validate(row["response"]["body"])
        assert response.status == "completed" and response.output_text
        assert response.usage is not None


async def test_a_batch_may_use_the_native_endpoint(client: openai.AsyncOpenAI) -> None:
    url = "/v1/generations"
    lines = [line(f"n{n}", {"prompt": f"tell me {n}", "params": DEMO}, url) for n in range(5)]
    batch = await ended(client, (await submit(client, encoded(lines), endpoint=url)).id)

    found = by_id(await rows(client, batch.output_file_id))
    assert found.keys() == {f"n{n}" for n in range(5)}
    for row in found.values():
        body = row["response"]["body"]
        assert body["status"] == "completed" and body["text"]
        assert body["priority"] == "batch" and body["session"] == batch.id


async def test_a_line_is_a_generation_that_can_be_read(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    batch = await submit(client, encoded([demo_line(1, tokens=40, per_s=20)]))
    reading = await api.get(f"/v1/batches/{batch.id}/events?wait=0")
    assert reading.status == 200

    done = await ended(client, batch.id)

    (row,) = await rows(client, done.output_file_id)
    snapshot = await api.get(f"/v1/generations/{row['response']['request_id']}")
    assert snapshot.json()["text"] == text_of(row)


async def test_the_counts_of_a_running_batch_rise(client: openai.AsyncOpenAI) -> None:
    lines = encoded(demo_line(n, tokens=10, per_s=20) for n in range(300))
    batch = await submit(client, lines)
    seen = set()

    async def some() -> bool:
        counts = (await client.batches.retrieve(batch.id)).request_counts
        assert counts is not None
        seen.add(counts.completed)
        return 0 < counts.completed < counts.total == 300

    await until(some, 30, "counts between nothing and all")
    assert (await client.batches.cancel(batch.id)).status == "cancelling"
    assert (await ended(client, batch.id, 10)).status == "cancelled"


# Wrong input


WRONG_LINES: dict[str, list[bytes]] = {
    "invalid_json_line": [b"{not json", b'{"custom_id":"\xff","method":"POST"}'],
    "invalid_line": [b"[1,2]", b'"text"', b'{"custom_id":"x","method":"POST","url":"URL"}'],
    "missing_custom_id": [
        b'{"method":"POST","url":"URL","body":{}}',
        b'{"custom_id":7,"method":"POST","url":"URL","body":{}}',
    ],
    "invalid_custom_id": [b'{"custom_id":"","method":"POST","url":"URL","body":{}}'],
    "duplicate_custom_id": [b'{"custom_id":"c0","method":"POST","url":"URL","body":{}}'],
    "invalid_method": [b'{"custom_id":"x","method":"GET","url":"URL","body":{}}'],
    "invalid_url": [b'{"custom_id":"x","method":"POST","url":"/v1/responses","body":{}}'],
}


@pytest.mark.parametrize(
    ("raw", "code"), [(raw, code) for code, raws in WRONG_LINES.items() for raw in raws]
)
async def test_a_wrong_line_is_named_and_no_line_runs(
    client: openai.AsyncOpenAI, raw: bytes, code: str
) -> None:
    raw = raw.replace(b"URL", CHAT.encode())
    content = encoded([demo_line(0), demo_line(1)]) + raw + b"\n" + encoded([demo_line(2)])

    assert await errors_of(client, content) == [(code, 3)]


async def test_every_wrong_line_is_named(client: openai.AsyncOpenAI) -> None:
    content = encoded([demo_line(0)]) + b"{\n" + encoded([demo_line(0)]) + b"\n[]\n"

    assert await errors_of(client, content) == [
        ("invalid_json_line", 2), ("duplicate_custom_id", 3), ("invalid_line", 5),
    ]  # fmt: skip


async def test_a_file_of_blank_lines_is_empty(client: openai.AsyncOpenAI) -> None:
    assert await errors_of(client, b"\n\r\n  \n") == [("empty_file", None)]


async def test_every_kind_of_line_end_is_accepted(client: openai.AsyncOpenAI) -> None:
    raws = encoded(demo_line(n) for n in range(3)).splitlines()
    content = raws[0] + b"\r\n\r\n" + raws[1] + b"\n" + raws[2]  # none at the end

    batch = await ended(client, (await submit(client, content)).id)

    assert batch.request_counts is not None
    assert batch.request_counts.completed == batch.request_counts.total == 3


async def test_a_line_that_the_api_would_refuse_goes_to_the_error_file(
    client: openai.AsyncOpenAI,
) -> None:
    lines = [
        demo_line(0),
        chat_line(1, model="no such model"),
        line("c2", {"messages": []}),
        line("c3", {"messages": "text"}),
        chat_line(4, n=2),
        {**line("c5", {}), "body": "text"},
        chat_line(6, stream=True, stream_options={"include_usage": True}, **DEMO),
        line("c7", {"messages": [{"role": "user", "content": "x" * 33_554_400}]}),
    ]
    batch = await ended(client, (await submit(client, encoded(lines))).id)

    assert batch.status == "completed" and batch.request_counts is not None
    assert batch.request_counts.model_dump() == {"total": 8, "completed": 2, "failed": 6}
    assert by_id(await rows(client, batch.output_file_id)).keys() == {"c0", "c6"}
    refused = by_id(await rows(client, batch.error_file_id))
    codes = {
        name: (row["response"]["status_code"], row["response"]["body"]["error"]["code"])
        for name, row in refused.items()
    }
    assert codes == {
        "c1": (404, "model_not_found"),
        "c2": (400, "invalid_request"),
        "c3": (400, "invalid_request"),
        "c4": (400, "invalid_request"),
        "c5": (400, "invalid_request"),
        "c7": (413, "body_too_large"),
    }
    assert all(row["error"]["code"] == codes[name][1] for name, row in refused.items())


# Asking for one


async def test_a_request_that_cannot_become_a_batch_is_refused(client: openai.AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", encoded([demo_line(0)])), purpose="batch")
    other = await client.files.create(file=("in.txt", b"text"), purpose="user_data")
    good: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    for wrong, status in (
        ({"input_file_id": "file-nosuchfile"}, 404),
        ({"input_file_id": "../etc/passwd"}, 404),
        ({"input_file_id": other.id}, 400),
        ({"endpoint": "/v1/embeddings"}, 404),
        ({"completion_window": "soon"}, 400),
        ({"completion_window": "8d"}, 400),
        ({"metadata": {"a": 1}}, 400),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, 400),
    ):
        with pytest.raises(openai.APIStatusError) as said:
            await client.batches.create(**(good | wrong))

        assert said.value.status_code == status, wrong
        assert said.value.body["message"]  # type: ignore[index]


async def test_an_unknown_batch_is_404(api: RawClient, client: openai.AsyncOpenAI) -> None:
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            await call("batch_00000000000000000000000000")
    for path in ("events", "dead_letters"):
        answer = await api.get(f"/v1/batches/batch_00000000000000000000000000/{path}")
        assert answer.status == 404


async def test_a_batch_is_no_generation(api: RawClient, client: openai.AsyncOpenAI) -> None:
    batch = await submit(client, encoded([demo_line(0)]))

    for path in ("", "/events"):
        assert (await api.get(f"/v1/generations/{batch.id}{path}")).status == 404
    assert (await api.call("POST", f"/v1/generations/{batch.id}/cancel")).status == 404
    assert (await ended(client, batch.id)).status == "completed"


async def test_an_idempotency_key_makes_one_batch(client: openai.AsyncOpenAI) -> None:
    file = await client.files.create(file=("in.jsonl", encoded([demo_line(0)])), purpose="batch")
    headers = {"Idempotency-Key": f"key-{file.id}"}
    asked: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}

    first = await client.batches.create(**asked, extra_headers=headers)
    second = await client.batches.create(**asked, extra_headers=headers)
    with pytest.raises(openai.BadRequestError) as said:
        await client.batches.create(**asked, metadata={"a": "b"}, extra_headers=headers)

    assert first.id == second.id
    assert said.value.code == "idempotency_mismatch"


async def test_the_pages_of_a_listing_show_every_batch(client: openai.AsyncOpenAI) -> None:
    made = [(await submit(client, encoded([demo_line(n)]))).id for n in range(5)]

    first = await client.batches.list(limit=2)
    seen = [batch.id async for batch in client.batches.list(limit=2)]

    assert [batch.id for batch in first.data] == made[:-3:-1]
    assert first.has_more
    assert seen[:5] == made[::-1]
    assert len(seen) == len(set(seen))
    with pytest.raises(openai.NotFoundError):
        await client.batches.list(after="batch_00000000000000000000000000")


async def test_the_output_expires_at_the_time_that_the_request_set(
    client: openai.AsyncOpenAI,
) -> None:
    expires: Any = {"anchor": "created_at", "seconds": 7_200}
    made = await submit(client, encoded([demo_line(0)]), output_expires_after=expires)
    batch = await ended(client, made.id)
    assert batch.output_file_id is not None

    output = await client.files.retrieve(batch.output_file_id)

    assert output.expires_at is not None
    assert abs(output.expires_at - output.created_at - 7_200) <= 1


# Events


async def test_the_events_show_every_line_and_the_end(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    batch = await submit(client, encoded(demo_line(n) for n in range(20)))
    await ended(client, batch.id)

    ndjson = await api.get(
        f"/v1/batches/{batch.id}/events", headers={"Accept": "application/x-ndjson"}
    )
    sse = await api.get(f"/v1/batches/{batch.id}/events", headers={"Accept": "text/event-stream"})

    events = ndjson.events
    assert [e.event_id for e in sse.events] == [e.event_id for e in events]
    assert [int(e.event_id.split("-")[1]) for e in events] == list(range(1, len(events) + 1))
    lines = [e.fields["value"] for e in events if e.type == "data"]
    assert {one["custom_id"] for one in lines} == {f"c{n}" for n in range(20)}
    assert {one["status"] for one in lines} == {"completed"}
    assert all(one["generation"].startswith("gen_") for one in lines)
    progress = [e.fields for e in events if e.type == "progress"]
    assert progress[-1] == {
        "stage": "in_progress", "current": 20, "total": 20, "percentage": 100.0,
    }  # fmt: skip
    assert events[-1].type == "end" and events[-1].fields["status"] == "completed"


async def test_the_events_continue_after_a_cursor_on_another_node(
    api: RawClient, client: openai.AsyncOpenAI
) -> None:
    batch = await submit(client, encoded(demo_line(n) for n in range(10)))
    await ended(client, batch.id)
    path = f"/v1/batches/{batch.id}/events"
    whole = (await api.get(path, headers={"Accept": "application/x-ndjson"})).events

    rest = await api.get(
        f"{path}?last_event_id={whole[4].event_id}",
        node=api.other_url,
        headers={"Accept": "application/x-ndjson"},
    )
    over = await api.get(f"{path}?last_event_id={whole[-1].event_id}")

    assert [e.event_id for e in rest.events] == [e.event_id for e in whole[5:]]
    assert over.status == 204


# Failures


async def test_redrive_makes_a_batch_of_the_failed_lines(client: openai.AsyncOpenAI) -> None:
    lines = [demo_line(0), chat_line(1, model="no such model"), line("c2", {"messages": []})]
    batch = await submit(client, encoded(lines), metadata={"a": "b"})
    await ended(client, batch.id)

    letters: Any = await client.get(f"/batches/{batch.id}/dead_letters", cast_to=object)
    made: Any = await client.post(f"/batches/{batch.id}/redrive", cast_to=object)
    again = await ended(client, made["id"])

    found = {one["custom_id"]: (one["line"], one["code"]) for one in letters["data"]}
    assert found == {"c1": (2, "model_not_found"), "c2": (3, "invalid_request")}
    assert made["metadata"] == {"a": "b", "redrive_of": batch.id}
    assert again.request_counts is not None
    assert again.request_counts.model_dump() == {"total": 2, "completed": 0, "failed": 2}
    assert by_id(await rows(client, again.error_file_id)).keys() == {"c1", "c2"}


async def test_a_batch_without_failed_lines_cannot_be_redriven(client: openai.AsyncOpenAI) -> None:
    batch = await submit(client, encoded([demo_line(0)]))
    await ended(client, batch.id)

    with pytest.raises(openai.BadRequestError):
        await client.post(f"/batches/{batch.id}/redrive", cast_to=object)


# Owners, and time


async def test_only_its_owner_sees_a_batch_and_its_events_expire(own_deployment: Any) -> None:
    settings = {"api_keys": "key-of-alice-12345:alice,key-of-bob-1234567:bob", "retention_s": "1"}
    async with own_deployment(api=1, workers=1, jobs=1, settings=settings) as deployment:
        url = deployment.urls[0]
        async with sdk(f"{url}/v1", "key-of-alice-12345") as alice:
            made = await submit(alice, encoded([demo_line(0)]))
            batch = await ended(alice, made.id)
            async with sdk(f"{url}/v1", "key-of-bob-1234567") as bob:
                for call in (bob.batches.retrieve, bob.batches.cancel):
                    with pytest.raises(openai.NotFoundError):
                        await call(made.id)
                with pytest.raises(openai.NotFoundError):
                    await bob.batches.create(
                        input_file_id=made.input_file_id, endpoint=CHAT, completion_window="24h"
                    )
                assert [one async for one in bob.batches.list()] == []
                assert batch.output_file_id is not None
                with pytest.raises(openai.NotFoundError):
                    await bob.files.content(batch.output_file_id)
        async with RawClient(url, key="key-of-alice-12345") as raw_client:
            events = f"/v1/batches/{made.id}/events"

            async def status() -> int:
                return (await raw_client.get(events)).status

            async def is_over() -> bool:
                return await status() == 410

            await until(is_over, 15, "events past their retention")
            assert (await raw_client.get(f"/v1/batches/{made.id}")).json()["status"] == "completed"
            async with RawClient(url, key="key-of-bob-1234567") as other:
                assert (await other.get(events)).status == 404
