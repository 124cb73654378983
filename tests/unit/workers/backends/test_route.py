"""The way to a model server: proxies, authorities, client certificates and headers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from shared.config.model_connection import Connection
from shared.config.model_request import RequestRules
from shared.config.models import Model
from shared.config.settings import Settings
from shared.errors import BackendError, ConfigurationError
from shared.log.events import Token
from shared.log.request import Request
from tests.support.certificates import Authority, encrypt_key
from tests.support.forward_proxy import CREDENTIALS, ForwardProxy
from tests.support.upstream import Upstream, expected_text
from workers.backends import build_backends
from workers.backends.http.tls import TlsFiles, client_context
from workers.backends.route import find_route

DEADLINE_S = 10.0  # far more than any of these tests needs
HOST = "model.test"  # no DNS server knows it: only the proxy leads there


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def model(base_url: str, *, headers: Mapping[str, str] | None = None, **connection: str) -> Model:
    return Model(
        name="m",
        base_url=base_url,
        rules=RequestRules(headers=headers or {}),
        connection=Connection(**connection),
    )


async def ask(which: Model, environ: Mapping[str, str] | None = None, *, times: int = 1) -> str:
    """Return the text of the last answer."""
    backend = build_backends({"m": which}, Settings(), environ or {})["m"]
    request = Request([{"role": "user", "content": "hello"}])
    text = ""
    try:
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(times):
                items: list[Any] = []
                async for batch in backend.stream(request, prefix="", seed="s"):
                    items += batch
                text = "".join(item.text for item in items if isinstance(item, Token))
    finally:
        await backend.aclose()
    return text


async def refusal(which: Model, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(BackendError) as caught:
        await ask(which, environ)
    return caught.value.message


def join_files(target: Path, *paths: str) -> str:
    target.write_text("".join(Path(path).read_text() for path in paths))
    return str(target)


# Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "member"])
async def test_https_goes_through_a_tunnel_of_the_proxy(
    authority: Authority, variable: str
) -> None:
    async with (
        Upstream(tls=authority.server_context(HOST)) as upstream,
        ForwardProxy(upstream.port, needs_credentials=True) as proxy,
    ):
        url = proxy.url(CREDENTIALS)
        member = {"proxy": url} if variable == "member" else {}
        which = model(f"https://{HOST}/v1", ca_file=authority.ca_file, **member)

        assert await ask(which, {variable: url}, times=2) == expected_text("hello")

        assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"], "the tunnel is used again"
        assert len(upstream.calls) == 2
        assert "proxy-authorization" not in upstream.calls[0].headers
        assert upstream.calls[0].headers["host"] == HOST


def test_the_tunnel_works_on_the_event_loop_of_a_worker(authority: Authority) -> None:
    async def run() -> str:
        async with (
            Upstream(tls=authority.server_context(HOST)) as upstream,
            ForwardProxy(upstream.port) as proxy,
        ):
            which = model(f"https://{HOST}/v1", ca_file=authority.ca_file, proxy=proxy.url())
            return await ask(which)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(run()) == expected_text("hello")


async def test_http_is_sent_to_the_proxy_with_the_whole_url() -> None:
    async with (
        Upstream() as upstream,
        ForwardProxy(upstream.port, needs_credentials=True) as proxy,
    ):
        environ = {"HTTP_PROXY": proxy.url(CREDENTIALS)}

        assert await ask(model(f"http://{HOST}:9000/v1"), environ) == expected_text("hello")

        assert proxy.asked == [f"POST http://{HOST}:9000/v1/chat/completions HTTP/1.1"]
        assert upstream.calls[0].headers["host"] == f"{HOST}:9000"


async def test_a_server_on_this_machine_needs_no_no_proxy() -> None:
    async with Upstream() as upstream, ForwardProxy(upstream.port) as proxy:
        environ = {"HTTP_PROXY": proxy.url(), "ALL_PROXY": proxy.url()}

        assert await ask(model(upstream.base_url), environ) == expected_text("hello")
        assert not proxy.asked

        await ask(model(upstream.base_url, proxy=proxy.url()), {})
        assert proxy.asked, "the member is obeyed for every address"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "the proxy answered 403"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the proxy's answer is not HTTP"),
        (b"", "the proxy closed the connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "the proxy sent bytes after its answer"),
        (b"HTTP/1.1 200 " + b"a" * 70_000, "the proxy's answer is too long"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(answer: bytes, said: str) -> None:
    async with ForwardProxy(0, answer=answer) as proxy:
        message = await refusal(model(f"https://{HOST}/v1", proxy=proxy.url()))

        assert said in message
        assert HOST not in message and "127.0.0.1" not in message


async def test_a_proxy_that_wants_credentials() -> None:
    async with ForwardProxy(0, needs_credentials=True) as proxy:
        which = model(f"https://{HOST}/v1", proxy=proxy.url("user:wrong"))

        assert "the proxy answered 407" in await refusal(which)


# TLS


async def test_a_client_certificate_is_shown_to_a_server_that_requires_one(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.sign("client")
    both = join_files(tmp_path / "both.pem", certificate, key)
    context = authority.server_context(HOST, needs_client=True)
    async with Upstream(tls=context) as upstream, ForwardProxy(upstream.port) as proxy:
        known = {"ca_file": authority.ca_file, "proxy": proxy.url()}
        url = f"https://{HOST}/v1"

        shown = await ask(model(url, client_cert=certificate, client_key=key, **known))
        assert shown == expected_text("hello")
        assert await ask(model(url, client_cert=both, **known)) == expected_text("hello")
        assert await refusal(model(url, **known))


async def test_only_the_named_authority_is_trusted(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    async with (
        Upstream(tls=authority.server_context(HOST)) as upstream,
        ForwardProxy(upstream.port) as proxy,
    ):
        for files in ({}, {"ca_file": other.ca_file}):
            assert await refusal(model(f"https://{HOST}/v1", proxy=proxy.url(), **files))
        wrong_name = model("https://another.test/v1", proxy=proxy.url(), ca_file=authority.ca_file)
        assert await refusal(wrong_name)
        assert not upstream.calls


def test_a_renewed_file_is_read_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    path = tmp_path / "trusted.pem"
    path.write_text(Path(authority.ca_file).read_text())
    files = TlsFiles(ca_file=str(path))
    before = client_context(files)
    assert client_context(files) is before

    (tmp_path / "new.pem").write_text(Path(other.ca_file).read_text())
    (tmp_path / "new.pem").rename(path)

    assert client_context(files) is not before


def test_files_that_cannot_be_used_stop_the_worker(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("client")
    other_key = authority.sign("other")[1]
    locked = encrypt_key(key, tmp_path / "locked.key")
    empty = tmp_path / "empty.pem"
    empty.touch()
    nowhere = str(tmp_path / "nowhere.pem")
    for files, said in (
        ({"ca_file": nowhere}, f"{nowhere}: No such file"),
        ({"ca_file": str(tmp_path)}, f"{tmp_path}: "),
        ({"ca_file": str(empty)}, "holds no certificates in PEM form"),
        ({"ca_file": key}, "holds no certificates in PEM form"),
        ({"client_cert": nowhere, "client_key": key}, f"{nowhere}: No such file"),
        ({"client_cert": certificate, "client_key": nowhere}, f"{nowhere}: No such file"),
        ({"client_cert": certificate}, "a certificate in PEM form and its key"),
        ({"client_cert": certificate, "client_key": other_key}, "KEY_VALUES_MISMATCH"),
        ({"client_cert": certificate, "client_key": locked}, "without a password"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            find_route(model("https://x/v1", **files), {})
        assert str(caught.value).startswith("models.m: ")
        assert said in str(caught.value)


# Headers and variables


async def test_headers_reach_the_server_and_replace_ours() -> None:
    async with Upstream() as upstream:
        headers = {"api-key": "${AZURE_KEY}", "user-agent": "mine", "X-Title": "a ${A}-${B}"}
        await ask(
            model(upstream.base_url, headers=headers), {"AZURE_KEY": "s3cret", "A": "1", "B": "2"}
        )

        sent = upstream.calls[0].headers
        assert (sent["api-key"], sent["user-agent"], sent["x-title"]) == ("s3cret", "mine", "a 1-2")
        assert sent["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    ("members", "environ", "said"),
    [
        ({"headers": {"api-key": "${NO}"}}, {}, "models.m.headers: 'api-key': set NO"),
        ({"headers": {"api-key": "${NO}"}}, {"NO": " "}, "models.m.headers: 'api-key': set NO"),
        ({"headers": {"a": "${NL}"}}, {"NL": "s3cret\nx"}, "'a': its variable holds characters"),
        ({"proxy": "http://u:${NO}@p"}, {}, "models.m.proxy: set NO"),
        ({"proxy": "socks5://u:s3cret@p"}, {}, "models.m.proxy: socks5:// proxies are not"),
        ({"proxy": "http://u:s3cret@"}, {}, "models.m.proxy: must be http://host:port"),
        ({"proxy": "http://p:99999"}, {}, "models.m.proxy: must be http://host:port"),
        ({"proxy": "http://u:s3cret"}, {}, "models.m.proxy: must be http://host:port"),
        ({}, {"HTTPS_PROXY": "socks5h://s3cret@p"}, "HTTPS_PROXY: socks5h:// proxies are not"),
        ({}, {"all_proxy": "https://s3cret@p"}, "ALL_PROXY: https:// proxies are not"),
    ],
)
def test_what_a_worker_cannot_start_with(
    members: dict[str, Any], environ: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_route(model("https://x/v1", **members), environ)

    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_log_says_which_models_are_behind_a_proxy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    models = {name: model(f"https://{name}/v1") for name in ("a.test", "b.test")}

    build_backends(models, Settings(), {"HTTPS_PROXY": "http://u:s3cret@p", "NO_PROXY": "b.test"})

    (record,) = caplog.records
    assert (record.message, record.__dict__["proxy"]) == ("model behind a proxy", "p:80")
    assert "s3cret" not in str(record.__dict__)


def test_direct_ignores_the_environment() -> None:
    environ = {"HTTPS_PROXY": "socks5://nothing"}

    assert find_route(model("https://x/v1", proxy="direct"), environ).proxy is None
