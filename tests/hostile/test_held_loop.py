"""How long one body of a megabyte keeps a node or a worker from serving other clients.

The tests measure the CPU time of the process, because a wall clock would also measure the other
processes of the machine. tests/unit/shared/text/test_large.py measures the time of one step.
"""

from __future__ import annotations

import json

import pytest

from tests.support.footprint import cpu_s
from tests.support.frames import converse
from tests.support.large_bodies import HEAVIEST, REFUSED
from tests.support.processes import Deployment, Role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import frame

TIMES = 2  # each body: the processor's time is counted in steps of 10 ms
# Of all steps together, and the way through HTTP and Redis. It was 0.1 s to 2.6 s in one step.
CPU_S_MAX = 0.08
JSON = {"Content-Type": "application/json"}
ITEMS = b"[],"
MEMBERS = b'"messages":[{"role":"user","content":"x"}],"input":"x","p":['
PATHS = [
    "/v1/chat/completions", "/v1/responses", "/ai-sdk/chat", "/deep-chat", "/v1/batches",
    "/ag-ui/demo",
]  # fmt: skip
SOCKETS = {
    "/v1/ws": '{"type":"start","prompt":"x","params":{"a":[',
    "/v1/responses": '{"type":"response.create","input":"x","params":{"a":[',
    "/lobe/ws": '{"type":"startConversation","prompt":"x","params":{"a":[',
    "/ai-sdk/ws": '{"type":"send","requestId":"r","params":{"a":[',
    "/deep-chat/ws": '{"messages":[{"text":"x"}],"params":{"a":[',
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_body_that_takes_long_to_decode_is_refused_before_decoding(
    node: Role, api: RawClient, name: str
) -> None:
    before = cpu_s(node.pid)
    for _ in range(TIMES):
        answer = await api.post(raw=REFUSED[name], headers=JSON)
        assert (answer.status, answer.error_code) == (400, "invalid_json")

    assert (cpu_s(node.pid) - before) / TIMES < CPU_S_MAX


@pytest.mark.parametrize("path", PATHS)
async def test_every_dialect_refuses_a_body_that_takes_long_to_decode(
    node: Role, api: RawClient, path: str
) -> None:
    raw = b"{" + MEMBERS + ITEMS * 340_000 + b"1]}"
    before = cpu_s(node.pid)
    for _ in range(TIMES):
        assert (await api.call("POST", path, raw=raw, headers=JSON)).status == 400

    assert (cpu_s(node.pid) - before) / TIMES < CPU_S_MAX


@pytest.mark.parametrize("path", SOCKETS)
async def test_every_socket_refuses_a_frame_that_takes_long_to_decode(
    node: Role, api: RawClient, path: str
) -> None:
    begin = SOCKETS[path]
    text = (begin + "[]," * 340_000 + "1" + "]}}").encode()
    before = cpu_s(node.pid)

    answers, code = await converse(
        api.url, [frame(text)] * TIMES, lambda said: json.dumps(said).count("50000") >= TIMES, path
    )

    assert code == 0 and answers
    assert (cpu_s(node.pid) - before) / TIMES < CPU_S_MAX


async def test_a_form_counts_as_one_document(node: Role, api: RawClient) -> None:
    """A thousand parts of a form may have a value in each, and all of them together too many."""
    head = '--x\r\nContent-Disposition: form-data; name="message%d"\r\n\r\n'
    part = '{"text":"x","a":[' + "[]," * 20_000 + "1]}\r\n"
    raw = "".join(head % (n + 1) + part for n in range(15)).encode() + b"--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    before = cpu_s(node.pid)

    for _ in range(TIMES):
        answer = await api.call("POST", "/deep-chat", raw=raw, headers=headers)
        assert answer.status == 400 and b"50000 values" in answer.body

    assert (cpu_s(node.pid) - before) / TIMES < CPU_S_MAX


@pytest.mark.parametrize("name", HEAVIEST)
async def test_the_heaviest_accepted_body_costs_little_time(
    node: Role, deployment: Deployment, api: RawClient, name: str
) -> None:
    worker = deployment.workers[0]
    before = cpu_s(node.pid), cpu_s(worker.pid)

    for _ in range(TIMES):
        answer = await api.post(raw=HEAVIEST[name], headers=JSON)
        assert answer.status == 202, answer.body[:200]
        await api.ended(answer.json()["id"])

    assert (cpu_s(node.pid) - before[0]) / TIMES < 2 * CPU_S_MAX
    assert (cpu_s(worker.pid) - before[1]) / TIMES < 2 * CPU_S_MAX
