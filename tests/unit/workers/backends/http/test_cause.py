"""Why a model server cannot be reached: real sockets, real certificates, and both event loops."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop

from shared.config.model_connection import Connection
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError
from shared.log.request import Request
from tests.support.certificates import Authority
from tests.support.faulty_ports import closed_port, plain_server
from tests.support.tls_server import tls_server
from workers.backends import build_backends
from workers.backends.contract import SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.proxy import Proxy
from workers.backends.http.tls import TlsFileInvalid
from workers.backends.http.upstream_http import Origin

DEADLINE_S = 10.0
NGINX = b"HTTP/1.1 400 x\r\ncontent-length: 5\r\nconnection: close\r\n\r\nnope!"
PORT_PAGE = b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>"
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+|localhost|\.test|\.invalid|:\d{2,5}|/|\.pem")


class Place(NamedTuple):
    """Where a test connects to, and the files of the connection."""

    url: str
    ca_file: str = ""
    proxy: str = "direct"


class Shelf:
    """The certificates of this module, and servers that show them."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.other = Authority(folder, "other")
        self.stack = ExitStack()
        self._places: dict[str, Place] = {}

    def place(self, make: Callable[[Shelf], Place]) -> Place:
        """Return the place that a function makes; make each place once."""
        if make.__name__ not in self._places:
            self._places[make.__name__] = make(self)
        return self._places[make.__name__]

    def tls(self, files: tuple[str, str], change: Callable[[ssl.SSLContext], None] | None) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        if change is not None:
            change(context)
        return self.stack.enter_context(tls_server(context))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path_factory.mktemp("certificates"))
    with shelf.stack:
        yield shelf


def self_signed(shelf: Shelf) -> Place:
    authority = shelf.other
    files = (authority.ca_file, str(authority.folder / "other.key"))
    return Place(f"https://localhost:{shelf.tls(files, None)}/v1")


def unknown_authority(shelf: Shelf) -> Place:
    port = shelf.tls(shelf.other.sign("localhost"), None)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def expired(shelf: Shelf) -> Place:
    port = shelf.tls(shelf.authority.sign_for_years("localhost", 2020, 2021), None)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def not_yet_valid(shelf: Shelf) -> Place:
    port = shelf.tls(shelf.authority.sign_for_years("localhost", 2090, 2091), None)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def another_name(shelf: Shelf) -> Place:
    port = shelf.tls(shelf.authority.sign("model.test"), None)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def another_address(shelf: Shelf) -> Place:
    port = shelf.tls(shelf.authority.sign("model.test"), None)
    return Place(f"https://127.0.0.1:{port}/v1", shelf.authority.ca_file)


def old_version(shelf: Shelf) -> Place:
    def change(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.maximum_version = ssl.TLSVersion.TLSv1_1

    port = shelf.tls(shelf.authority.sign("localhost"), change)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def client_certificate(shelf: Shelf) -> Place:
    def change(context: ssl.SSLContext) -> None:
        context.load_verify_locations(shelf.authority.ca_file)
        context.verify_mode = ssl.CERT_REQUIRED

    port = shelf.tls(shelf.authority.sign("localhost"), change)
    return Place(f"https://localhost:{port}/v1", shelf.authority.ca_file)


def https_to_http(shelf: Shelf) -> Place:
    return Place(f"https://localhost:{shelf.stack.enter_context(plain_server(NGINX))}/v1")


def https_to_a_port_that_closes(shelf: Shelf) -> Place:
    return Place(f"https://localhost:{shelf.stack.enter_context(plain_server(b''))}/v1")


def http_to_tls(shelf: Shelf) -> Place:
    alert = b"\x15\x03\x01\x00\x02\x02\x46"  # as Go's and OpenSSL's servers send it
    return Place(f"http://localhost:{shelf.stack.enter_context(plain_server(alert))}/v1")


def http_to_a_tls_server_of_python(shelf: Shelf) -> Place:
    return Place(f"http://localhost:{shelf.tls(shelf.authority.sign('localhost'), None)}/v1")


def http_to_nginx(shelf: Shelf) -> Place:
    page = b"HTTP/1.1 400 x\r\ncontent-length: %d\r\n\r\n%b" % (len(PORT_PAGE), PORT_PAGE)
    return Place(f"http://localhost:{shelf.stack.enter_context(plain_server(page))}/v1")


def refused(shelf: Shelf) -> Place:
    return Place(f"http://127.0.0.1:{shelf.stack.enter_context(closed_port())}/v1")


def refused_at_all_addresses(shelf: Shelf) -> Place:
    return Place(f"http://localhost:{shelf.stack.enter_context(closed_port())}/v1")


def refused_by_the_proxy(shelf: Shelf) -> Place:
    port = shelf.stack.enter_context(closed_port())
    return Place("https://model.test/v1", proxy=f"http://127.0.0.1:{port}")


def proxy_with_credentials(shelf: Shelf) -> Place:
    port = shelf.stack.enter_context(plain_server(b"HTTP/1.1 407 Who\r\n\r\n"))
    return Place("https://model.test/v1", proxy=f"http://127.0.0.1:{port}")


def http_proxy_with_credentials(shelf: Shelf) -> Place:
    answer = b"HTTP/1.1 407 Who\r\ncontent-length: 0\r\n\r\n"
    port = shelf.stack.enter_context(plain_server(answer))
    return Place("http://model.test/v1", proxy=f"http://127.0.0.1:{port}")


def invalid_url(shelf: Shelf) -> Place:
    return Place("http://model.test:99999/v1")


REACH = "the backend cannot be reached: "
ROWS = {
    self_signed: (f"{REACH}its certificate is self-signed", "localhost:PORT is self-signed: name"),
    unknown_authority: (f"{REACH}its certificate is of an unknown authority", "in ca_file"),
    expired: (f"{REACH}its certificate has expired", "localhost:PORT has expired: renew it"),
    not_yet_valid: (f"{REACH}its certificate is not valid yet", "check the clock"),
    another_name: (f"{REACH}its certificate is for another host", "a name of the certificate"),
    another_address: (f"{REACH}its certificate is for another host", "127.0.0.1:PORT"),
    old_version: (f"{REACH}it has no TLS version in common with this system", "update one"),
    client_certificate: (
        "the backend did not answer: the connection was closed",
        "does not accept the client certificate of this system",
    ),
    https_to_http: (f"{REACH}it does not speak TLS", "write http:// in base_url"),
    https_to_a_port_that_closes: (f"{REACH}it closes the connection", "otherwise write http://"),
    http_to_tls: (
        "the backend did not answer: the answer is TLS and not HTTP", "write https:// in base_url",
    ),
    http_to_a_tls_server_of_python: ("the backend did not answer: ", "write https:// in base_url"),
    http_to_nginx: ("the backend answered 400: it needs https", "the server https://"),
    refused: (f"{REACH}it refuses the connection", "no server listens at 127.0.0.1:PORT: start it"),
    refused_at_all_addresses: (f"{REACH}it refuses the connection", "localhost:PORT: start it"),
    refused_by_the_proxy: (f"{REACH}the proxy refuses the connection", "the proxy 127.0.0.1:PORT"),
    proxy_with_credentials: (f"{REACH}the proxy answered 407", "put user and password into"),
    http_proxy_with_credentials: (
        "the backend answered 407: the proxy wants credentials", "put user and password into",
    ),
    invalid_url: (f"{REACH}its address is not valid", "model.test:99999/v1' is no address"),
}  # fmt: skip


async def failure(place: Place) -> SetUpFault:
    connection = Connection(ca_file=place.ca_file, proxy=place.proxy)
    model = Model(name="m", base_url=place.url, connection=connection)
    backend = build_backends({"m": model}, Settings(), {})["m"]
    with pytest.raises(BackendError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            async for _ in backend.stream(Request([]), prefix="", seed="s"):
                pass
    await backend.aclose()
    assert isinstance(caught.value, SetUpFault), caught.value
    return caught.value


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("make", ROWS, ids=lambda make: make.__name__)
def test_each_cause_has_a_sentence_for_the_client_and_one_for_the_operator(
    make: Callable[[Shelf], Place], loop: str, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    message, advice = ROWS[make]
    place = shelf.place(make)
    factory = uvloop.new_event_loop if loop == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner, caplog.at_level(logging.WARNING):
        error = runner.run(failure(place))

    port = re.search(r":(\d+)", place.proxy if place.proxy != "direct" else place.url)
    assert error.message.startswith(message)
    assert not ADDRESS.search(error.message), "a client's message names no address"
    assert advice.replace("PORT", port[1] if port else "") in error.advice
    (record,) = [record for record in caplog.records if record.msg == "model server unusable"]
    assert (record.__dict__["model"], record.__dict__["advice"]) == ("m", error.advice)


def test_the_same_advice_is_logged_once_a_minute(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    place = shelf.place(refused)
    model = Model(name="m", base_url=place.url)
    backend = build_backends({"m": model}, Settings(), {})["m"]

    async def ask_three_times() -> None:
        for _ in range(3):
            with suppress(BackendError):
                async for _ in backend.stream(Request([]), prefix="", seed="s"):
                    pass
        await backend.aclose()

    with asyncio.Runner() as runner, caplog.at_level(logging.WARNING):
        runner.run(ask_three_times())

    assert [record.msg for record in caplog.records] == ["model server unusable"]


ORIGIN = Origin("model.test", 8443, True)
BY_PROXY = ORIGIN._replace(proxy=Proxy("proxy.test", 3128))
MIXED = "Multiple exceptions: [Errno 111] Connect call failed ('::1'), [Errno 101] unreachable"


@pytest.mark.parametrize(
    ("error", "said", "advice"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "x"),
            "its host name is unknown",
            "no host model.test:",
        ),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "DNS gives no answer", "for model.test:"),
        (TimeoutError(), "it does not answer", "model.test:8443 does not answer"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route leads to it", "model.test:8443"),
        (OSError(MIXED), "it refuses the connection", "model.test:8443"),
        (
            ConnectionResetError(errno.ECONNRESET, "x"),
            "it closes the connection",
            "model.test:8443",
        ),
        (TlsFileInvalid("/etc/ca.pem: gone"), "a certificate file of this system", "/etc/ca.pem"),
        (OSError("10.0.0.1 is odd"), "the connection failed", "10.0.0.1 is odd"),
    ],
)
def test_the_sentences_of_causes_that_a_test_cannot_make(
    error: OSError, said: str, advice: str
) -> None:
    cause = explain(error, ORIGIN)

    assert cause.for_client.startswith(said)
    assert advice in cause.for_operator
    assert not ADDRESS.search(cause.for_client)


def test_the_first_cause_counts_also_inside_the_error_of_an_http_client() -> None:
    try:
        try:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        except OSError as exc:
            raise ConnectionResetError("Cannot connect to host model.test:8443") from exc
    except OSError as exc:
        assert explain(exc, ORIGIN).for_client == "its host name is unknown"


def test_behind_a_proxy_the_address_of_the_proxy_is_named() -> None:
    for error in (socket.gaierror(socket.EAI_NONAME, "x"), TimeoutError(),
                  ConnectionRefusedError(errno.ECONNREFUSED, "x")):  # fmt: skip
        assert "proxy.test" in explain(error, BY_PROXY).for_operator


def test_a_name_that_no_resolver_knows() -> None:
    """The name ends in .invalid, which no DNS server may know (RFC 6761)."""
    with asyncio.Runner() as runner:
        error = runner.run(failure(Place("http://model.invalid/v1")))

    # The machine of the test may have no DNS server, or a slow one.
    assert "model.invalid" in error.advice and "model.invalid" not in error.message
