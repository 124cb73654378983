"""A node that speaks TLS itself: answers, sockets, refusals, cuts, and a renewed certificate."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.certificates import Authority
from tests.support.demo import demo_body, expected_text
from tests.support.processes import Deployment, run_role
from tests.support.raw_client import RawClient
from tests.support.raw_wire import stopped_socket
from tests.support.redis_server import RedisServer
from tests.support.wait import until

DEADLINE_S = 20
QUICK, LONG = demo_body(60, 400), demo_body(60, 25)


class Place:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.cert, self.key = self.authority.sign_for_years("localhost", 2020, 2090)
        self.settings = {
            "tls_cert": self.cert,
            "tls_key": self.key,
            "subscriber_bytes_max": "20000",
            "drain_s": "1",
        }
        self.deployment: Deployment

    @property
    def url(self) -> str:
        return f"https://localhost:{self.deployment.api[0].port}"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.ca_file)

    def client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            self.url, connector=aiohttp.TCPConnector(ssl=self.tls(), force_close=True)
        )

    def shown_certificate(self) -> str:
        """The serial number of the certificate that a new connection is shown."""
        pem = ssl.get_server_certificate(("localhost", self.deployment.api[0].port))
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    place = Place(tmp_path_factory.mktemp("tls"))
    async with Deployment(api=1, workers=1, settings=place.settings) as place.deployment:
        yield place


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in events)


async def events_of(lines: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    async for line in lines:
        if line.startswith(b"{"):
            yield json.loads(line)


async def test_an_answer_is_whole_over_tls_and_over_plain_http(place: Place) -> None:
    for base in (place.url, place.deployment.api[0].url):
        connector = aiohttp.TCPConnector(ssl=place.tls())
        async with aiohttp.ClientSession(connector=connector) as client:
            headers = {"Accept": "application/x-ndjson"}
            async with client.post(f"{base}/v1/generations", json=QUICK, headers=headers) as answer:
                events = [event async for event in events_of(answer.content)]

        assert text_of(events) == expected_text(QUICK, answer.headers["X-Generation-Id"])
        assert events[-1]["status"] == "completed"


async def test_a_socket_and_a_refusal_work_over_tls(place: Place) -> None:
    async with place.client() as client:
        async with client.ws_connect("/v1/ws") as socket:
            await socket.send_json({"type": "start", "ref": "a", **QUICK})
            frames: list[dict[str, Any]] = []
            async with asyncio.timeout(DEADLINE_S):
                while not frames or frames[-1]["type"] != "end":
                    frames.append(await socket.receive_json())
            assert text_of(frames) == expected_text(QUICK, frames[-1]["id"])
        async with client.get("/", headers={"X": "y" * 90_000}) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (
                431,
                "head_too_large",
            )


async def test_a_reader_that_reads_nothing_is_cut_over_tls(place: Place) -> None:
    """Megabytes from a producer: the kernel holds two of them, as records of TLS are large."""
    raw = stopped_socket()
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", place.deployment.api[0].port))
    async with place.client() as client:
        async with client.post("/v1/generations", json={"producer": True}) as answer:
            told = await answer.json()
        reader, writer = await asyncio.open_connection(
            sock=raw, ssl=place.tls(), server_hostname="localhost", limit=2_048
        )
        writer.write(f"GET {told['events_url']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")

        async def cuts() -> float:
            async with client.get("/metrics") as answer:
                lines = (await answer.text()).splitlines()
            return sum(float(x.split()[-1]) for x in lines if x.startswith("tailrace_hub_cuts"))

        try:
            assert not await cuts()
            for seq in range(told["next_seq"], told["next_seq"] + 5):
                body = {"seq": seq, "events": [{"type": "token", "text": "x" * 1_000_000}]}
                headers = {"X-Producer-Token": told["producer_token"]}
                async with client.post(told["events_url"], json=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
            await until(cuts, DEADLINE_S, "a cut")
        finally:
            writer.transport.abort()


async def test_a_renewed_certificate_is_shown_without_a_restart(place: Place) -> None:
    before = await asyncio.to_thread(place.shown_certificate)
    async with place.client() as client:
        headers = {"Accept": "application/x-ndjson"}
        async with client.post("/v1/generations", json=LONG, headers=headers) as answer:
            stream = events_of(answer.content)
            first = await anext(stream)
            cert, key = place.authority.sign_for_years("localhost", 2020, 2091)
            assert (cert, key) == (place.cert, place.key), "written in place"

            async def is_renewed() -> bool:
                return await asyncio.to_thread(place.shown_certificate) != before

            await until(is_renewed, DEADLINE_S, "the new certificate")

            events = [first] + [event async for event in stream]
    assert text_of(events) == expected_text(LONG, answer.headers["X-Generation-Id"])


async def test_a_drain_over_tls_breaks_a_stream_off_so_that_it_can_resume(place: Place) -> None:
    async with place.client() as client:
        headers = {"Accept": "application/x-ndjson"}
        async with client.post("/v1/generations", json=LONG, headers=headers) as answer:
            stream = events_of(answer.content)
            events = [await anext(stream)]
            place.deployment.api[0].terminate()
            with contextlib.suppress(aiohttp.ClientError):
                events += [event async for event in stream]
    await place.deployment.api[0].gone()
    place.deployment.api[0].start()
    await place.deployment.api[0].ready()

    generation_id, cursor = answer.headers["X-Generation-Id"], events[-1]["id"]
    async with place.client() as client:
        path = f"/v1/generations/{generation_id}/events"
        async with client.get(path, headers={**headers, "Last-Event-ID": cursor}) as rest:
            events += [event async for event in events_of(rest.content)]

    assert text_of(events) == expected_text(LONG, generation_id)


async def test_a_node_with_tls_only_says_so_to_a_plain_client(
    redis_server: RedisServer, place: Place
) -> None:
    settings = {**place.settings, "tls_only": "on"}
    deployment = Deployment(
        api=1, workers=0, server=redis_server, settings=settings, is_waiting_for_workers=False
    )
    async with deployment, RawClient(deployment.api[0].url) as plain:
        answer = await plain.get("/livez")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (400, "tls_required")
        async with aiohttp.ClientSession() as client:
            url = f"https://localhost:{deployment.api[0].port}/livez"
            async with client.get(url, ssl=place.tls()) as answered:
                assert answered.status == 200


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tls_cert": "x.pem"}, "TLS needs both TAILRACE_TLS_CERT and TAILRACE_TLS_KEY"),
        ({"tls_only": "on"}, "TLS needs both TAILRACE_TLS_CERT and TAILRACE_TLS_KEY"),
        ({"tls_cert": "/no.pem", "tls_key": "/no.key"}, "TAILRACE_TLS_CERT: cannot read /no.pem"),
    ],
)
async def test_a_node_without_a_usable_certificate_does_not_start(
    redis_server: RedisServer, settings: dict[str, str], why: str
) -> None:
    given = {"redis_url": redis_server.url, "port": "0", **settings}
    environment = {f"TAILRACE_{name.upper()}": value for name, value in given.items()}

    code, said = await run_role("api", environment)

    assert code == 2 and why in said, said
