"""The findings of the doctor: their levels, and the advice for each problem."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cli import doctor, redis_findings
from cli.doctor import examine_models
from cli.finding import Finding
from cli.redis_findings import examine_redis
from shared.config.models import Model
from shared.config.settings import Settings
from shared.queue.partitions import agree
from tests.support.certificates import Authority
from tests.support.faulty_ports import closed_port, plain_server
from tests.support.forward_proxy import CREDENTIALS, ForwardProxy
from tests.support.issuer import serve_keys
from tests.support.redis_server import RedisServer, free_port
from tests.support.restricted_user import PASSWORD, USER, add_user, rules_of_the_documents
from tests.support.tls_server import tls_server
from tests.support.upstream import Upstream

GB = 2**30
HEALTHY = {
    "redis_version": "7.0.15", "maxmemory_policy": "noeviction", "aof_enabled": 1,
    "maxmemory": GB, "total_system_memory": 4 * GB,
}  # fmt: skip
MODEL = Model(name="m", base_url="http://h/v1", model="qwen", api_key_env="KEY")


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("version", "level"), [((3, 11, 0), "ok"), ((3, 14, 1), "ok"), ((3, 10, 9), "FAIL")]
)
def test_python(version: tuple[int, ...], level: str) -> None:
    assert doctor.judge_python(version).level == level


@pytest.mark.parametrize(("hard", "level"), [(65_536, "ok"), (1_024, "warn"), (100, "FAIL")])
def test_open_files(hard: int, level: str) -> None:
    assert doctor.judge_open_files(hard).level == level


def test_a_healthy_server() -> None:
    assert levels(redis_findings.judge_server(HEALTHY)) == ["ok", "ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"redis_version": "6.0.16"}, ["FAIL", "ok", "ok", "ok"]),
        ({"redis_version": "6.2.0"}, ["ok", "ok", "ok", "ok"]),
        ({"redis_version": ""}, ["FAIL", "ok", "ok", "ok"]),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, ["ok", "ok", "ok", "ok"]),
        ({"maxmemory_policy": "allkeys-lru"}, ["ok", "FAIL", "ok", "ok"]),
        ({"aof_enabled": 0}, ["ok", "ok", "warn", "ok"]),
        ({"maxmemory": 0}, ["ok", "ok", "ok", "warn"]),
        ({"maxmemory": 3 * GB}, ["ok", "ok", "ok", "warn"]),
        ({"total_system_memory": 0}, ["ok", "ok", "ok", "ok"]),
    ],
)
def test_servers_with_one_problem(change: dict[str, object], expected: list[str]) -> None:
    assert levels(redis_findings.judge_server(HEALTHY | change)) == expected


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", "ok"),
        ("normal 0 0 0 slave 0 0 0 pubsub 0 0 0", "ok"),
        ("normal 0 0 0 slave 0 0 0 pubsub 1048576 0 0", "warn"),
        ("", "warn"),
        ("pubsub", "warn"),
    ],
)
def test_pubsub_buffers(value: str, level: str) -> None:
    assert redis_findings.judge_pubsub_limit(value).level == level


@pytest.mark.parametrize(
    ("status", "names", "level"),
    [
        (200, ["qwen"], "ok"),
        (200, ["llama"], "warn"),
        (200, [], "warn"),
        (200, None, "warn"),
        (404, None, "warn"),
        (401, None, "FAIL"),
        (403, None, "FAIL"),
        (500, None, "FAIL"),
    ],
)
def test_the_answer_of_a_model_server(status: int, names: list[str] | None, level: str) -> None:
    assert doctor.judge_answer(MODEL, status, names).level == level


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        (Settings(), "ok"),
        (Settings(host="0.0.0.0"), "FAIL"),
        (Settings(host="0.0.0.0", auth="off"), "warn"),
        (Settings(host="0.0.0.0", api_keys="a-key-that-is-long-enough:me"), "ok"),
    ],
)
def test_the_address_and_the_credentials(settings: Settings, level: str) -> None:
    assert doctor.examine_address(settings).level == level


LONG_KEY = "x" * 16


@pytest.mark.parametrize(
    ("settings", "subjects"),
    [
        (Settings(), []),
        (Settings(api_keys=f"{LONG_KEY}:alice"), []),
        (Settings(api_keys=f"{LONG_KEY}:alice,short:bob"), ["keys"]),
        (Settings(cors_origins="*"), ["origins"]),
        (Settings(cors_origins="https://app.example"), []),
        (Settings(cors_origins="*", api_keys=f"{LONG_KEY}:alice"), []),
        (Settings(api_keys="malformed"), []),
    ],
)
def test_settings_that_give_unexpected_access(settings: Settings, subjects: list[str]) -> None:
    findings = doctor.examine_access(settings)

    assert [finding.subject for finding in findings] == subjects
    assert all(finding.level == "warn" and "short" not in finding.text for finding in findings)
    assert all(": " in finding.text for finding in findings), "each text says what to do"


def test_a_short_secret_of_tokens_is_warned_of() -> None:
    (finding,) = doctor.examine_access(Settings(jwt_secret="easy-to-guess"))

    assert (finding.level, finding.subject) == ("warn", "tokens")
    assert "easy" not in finding.text
    assert doctor.examine_access(Settings(jwt_secret="x" * 32)) == []


async def test_the_public_keys_of_an_issuer_are_fetched() -> None:
    async with serve_keys() as issuer:
        (good,) = await doctor.examine_token_keys(Settings(jwt_jwks=issuer.url))
        issuer.body = b"{}"
        (bad,) = await doctor.examine_token_keys(Settings(jwt_jwks=issuer.url))

    assert (good.level, bad.level) == ("ok", "warn")
    assert ": " in bad.text
    assert await doctor.examine_token_keys(Settings(jwt_secret="x" * 32)) == []


async def test_a_real_server(redis_server: RedisServer) -> None:
    findings = await examine_redis(Settings(redis_url=redis_server.url))

    # Test servers have no append-only file and no maxmemory.
    assert levels(findings) == ["ok", "ok", "warn", "warn", "ok", "ok", "ok", "ok"]


@pytest.mark.parametrize(
    ("settings", "level", "hint"),
    [
        ({"queue_partitions": 4}, "ok", "partitions of the queue: 4"),
        ({"queue_partitions": 8}, "FAIL", "set the same number"),
        ({"queue_partitions": 4, "worker_slots": 11}, "warn", "WORKER_SLOTS to 12"),
    ],
)
async def test_the_number_of_partitions_is_compared(
    redis_server: RedisServer, real_redis: Redis, settings: dict[str, int], level: str, hint: str
) -> None:
    url = redis_server.url
    await agree(real_redis, Settings(redis_url=url, queue_partitions=4))

    findings = await examine_redis(Settings(redis_url=url, **settings))

    assert any(found.level == level and hint in found.text for found in findings), findings


@pytest.mark.parametrize(
    ("changes", "level", "hint"),
    [
        ([], "ok", "database 1"),
        (["-select"], "ok", "database 0, with all other data"),
        (["-info"], "warn", "allow INFO"),
        (["-config|get"], "warn", "client-output-buffer-limit"),
        (["-blpop", "-lpush"], "FAIL", "BLPOP, LPUSH"),
    ],
)
async def test_a_user_with_restricted_rights(
    redis_server: RedisServer, changes: list[str], level: str, hint: str
) -> None:
    add_user(redis_server, *rules_of_the_documents(), *changes)
    url = f"{redis_server.url}&username={USER}&password={PASSWORD}"
    findings = await examine_redis(Settings(redis_url=url))

    assert any(found.level == level and hint in found.text for found in findings), findings
    assert any(found.level == "FAIL" for found in findings) == (level == "FAIL")


async def test_a_server_in_cluster_mode() -> None:
    options = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with RedisServer(tcp=True, options=options) as server:
        (finding,) = await examine_redis(Settings(redis_url=server.url))

    assert finding.level == "FAIL" and "cluster mode" in finding.text


async def test_a_database_that_does_not_exist(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("db=0", "db=16")
    findings = await examine_redis(Settings(redis_url=url))

    assert levels(findings) == ["FAIL"] and "database" in findings[0].text


def test_the_variables_of_a_kubernetes_service() -> None:
    (finding,) = doctor.examine_variables({"TAILRACE_PORT": "tcp://10.0.0.1:1", "PATH": "/bin"})

    assert finding.level == "warn" and "enableServiceLinks" in finding.text
    assert doctor.examine_variables({"TAILRACE_PORT": "8000"}) == []


@pytest.mark.parametrize(("name", "level"), [("data_dir", "warn"), ("files_url", "FAIL")])
async def test_no_place_for_files(name: str, level: str) -> None:
    finding = await doctor.examine_files(Settings(**{name: "/dev/null"}))

    assert finding.level == level and "TAILRACE_FILES_URL" in finding.text


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "unix:///no/such/socket"])
async def test_an_unreachable_server(url: str) -> None:
    (finding,) = await examine_redis(Settings(redis_url=url))

    assert finding.level == "FAIL"
    assert "TAILRACE_REDIS_URL" in finding.text


async def test_the_model_servers_are_checked(tmp_path: Path) -> None:
    """One server lists its model, one model has no key, one server does not run."""
    requests: list[bytes] = []
    body = b'{"data": [{"id": "up"}]}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        path = tmp_path / "models.toml"
        path.write_text(
            f'[models.up]\nbase_url = "http://127.0.0.1:{port}/v1/"\napi_key_env = "A"\n'
            f'[models.keyless]\nbase_url = "http://127.0.0.1:{port}/v1"\napi_key_env = "B"\n'
            f'[models.away]\nbase_url = "http://127.0.0.1:{free_port()}/v1"\n'
            '[models.demo]\nbackend = "demo"\n'
        )
        findings = await examine_models(Settings(models=str(path)), {"A": "the-key"})

    assert levels(findings) == ["ok", "ok", "FAIL", "FAIL"]
    assert "set B" in findings[2].text
    (request,) = requests
    assert request.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"Authorization: Bearer the-key" in request
    assert not any("the-key" in finding.text for finding in findings)


@pytest.mark.parametrize(
    ("kind", "body", "line", "header"),
    [
        (
            "anthropic",
            b'{"data": [{"type": "model", "id": "m"}], "has_more": false}',
            b"GET /v1/models?limit=1000 HTTP/1.1",
            b"anthropic-version: 2023-06-01",
        ),
        (
            "gemini",
            b'{"models": [{"name": "models/m"}]}',
            b"GET /v1/models?pageSize=1000 HTTP/1.1",
            b"x-goog-api-key: the-key",
        ),
        ("responses", b'{"data": [{"id": "m"}]}', b"GET /v1/models HTTP/1.1", b"Bearer the-key"),
    ],
)
async def test_the_servers_of_vendors_are_checked(
    tmp_path: Path, kind: str, body: bytes, line: bytes, header: bytes
) -> None:
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        path = tmp_path / "models.toml"
        path.write_text(
            f'[models.m]\nbackend = "{kind}"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
            'api_key_env = "A"\n'
        )
        findings = await examine_models(Settings(models=str(path)), {"A": "the-key"})

    assert levels(findings) == ["ok", "ok"]
    assert requests[0].startswith(line) and header in requests[0]


def test_a_fail_gives_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor(Settings(host="0.0.0.0", models_discover="off")) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok    python")
    assert any(line.startswith("FAIL  address") for line in lines)


def test_without_a_fail_the_exit_code_is_0() -> None:
    assert doctor.doctor(Settings(models_discover="off")) == 0


# Files


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "ok"),
        ("ftp://x", "FAIL"),
        ("/dev/null/files", "FAIL"),
        # No server answers there: the finding must come quickly.
        ("s3://bucket", "FAIL"),
    ],
)
async def test_the_place_of_the_files(
    url: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "FILES_ANSWER_S", 0.5)
    for name, value in (
        ("AWS_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "r"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    finding = await doctor.examine_files(Settings(files_url=url, data_dir=str(tmp_path / "d")))

    assert finding.level == expected, finding
    assert not (tmp_path / "d").exists()
    if expected == "FAIL":
        assert "TAILRACE_FILES_URL" in finding.text


@pytest.mark.parametrize(
    ("free", "is_shared", "level", "advice"),
    [
        (2**30 - 1, False, "warn", "uploads are refused"),
        (2 * 2**30 - 1, False, "warn", "make room"),
        (2 * 2**30, False, "ok", ""),
        (5 * 2**30 - 1, True, "warn", "Redis's file grows on the same disk"),
        (5 * 2**30, True, "ok", ""),
    ],
)
def test_free_space_for_files(free: int, is_shared: bool, level: str, advice: str) -> None:
    finding = doctor.judge_space(free, 2**30, is_shared=is_shared)

    assert finding.level == level and advice in finding.text


def test_the_disk_of_the_files_is_checked(tmp_path: Path) -> None:
    here = {"files_url": str(tmp_path / "files"), "data_dir": str(tmp_path / "data")}
    assert levels(doctor.examine_space(Settings(**here, files_free_bytes_min=1)))
    (full,) = doctor.examine_space(Settings(**here, files_free_bytes_min=2**40 - 1))
    assert full.level == "warn" and "refused" in full.text
    assert doctor.examine_space(Settings(files_url="s3://bucket")) == []
    assert not any(tmp_path.iterdir()), "nothing is created"


def test_a_key_file_that_others_can_read_gives_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("a-key-of-more-than-16-characters:alice\n")
    path.chmod(0o644)
    (finding,) = doctor.examine_access(Settings(api_keys=str(path)))
    path.chmod(0o600)

    assert (finding.level, f"chmod 600 {path}" in finding.text) == ("warn", True)
    assert doctor.examine_access(Settings(api_keys=str(path))) == []


async def test_a_model_is_asked_on_the_way_that_a_worker_takes(tmp_path: Path) -> None:
    """Through the proxy, with its authority, a client certificate and headers; or by http://."""
    authority = Authority(tmp_path)
    authority.sign("client")
    path = tmp_path / "models.toml"
    context = authority.server_context("model.test", needs_client=True)
    async with (
        Upstream(tls=context) as upstream,
        ForwardProxy(upstream.port, needs_credentials=True) as tunnel,
        Upstream() as plain,
        ForwardProxy(plain.port, needs_credentials=True) as forward,
    ):
        path.write_text(
            '[models.a]\nbase_url = "https://model.test/v1"\nheaders = {x = "${A}"}\n'
            'ca_file = "ca.pem"\nclient_cert = "client.pem"\nclient_key = "client.key"\n'
            '[models.b]\nbase_url = "http://model.test/v1/?a=b"\n'
            '[models.c]\nbase_url = "https://model.test/v1"\nca_file = "absent.pem"\n'
        )
        proxies = {"HTTPS_PROXY": tunnel.url(CREDENTIALS), "http_proxy": forward.url(CREDENTIALS)}
        findings = await examine_models(Settings(models=str(path)), {"A": "1"} | proxies)

    assert [finding.level for finding in findings] == ["ok", "warn", "warn", "FAIL"], findings
    assert "407" not in "".join(finding.text for finding in findings)
    assert all("models file" in finding.text for finding in findings[1:3]), findings
    assert "absent.pem: No such file" in findings[-1].text
    assert tunnel.asked == ["CONNECT model.test:443 HTTP/1.1"]
    assert forward.asked == ["GET http://model.test/v1/models?a=b HTTP/1.1"]


async def test_each_cause_of_an_unreachable_model_says_what_to_do(tmp_path: Path) -> None:
    """The same sentences as in a worker's log, from the errors of another HTTP client."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*other.sign("localhost"))
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(*authority.sign_for_years("localhost", 2020, 2021))
    answers = {
        "alert": b"\x15\x03\x01\x00\x02\x02\x46",
        "nothing": b"",
        "redirect": b"HTTP/1.1 308 x\r\nlocation: https://a.example/\r\ncontent-length: 0\r\n\r\n",
        "page": b"HTTP/1.1 400 x\r\ncontent-length: 48\r\n\r\n"
        b"Client sent an HTTP request to an HTTPS server.\n",
        "plain": b"HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n",
        "proxy": b"HTTP/1.1 407 x\r\ncontent-length: 0\r\n\r\n",
    }
    with ExitStack() as stack:
        port = {name: stack.enter_context(plain_server(answers[name])) for name in answers}
        unknown, expired = (stack.enter_context(tls_server(each)) for each in (context, old))
        closed = stack.enter_context(closed_port())
        proxy = f'proxy = "http://127.0.0.1:{port["proxy"]}"'
        rows = {
            f"http://127.0.0.1:{closed}/v1": f"no server listens at 127.0.0.1:{closed}",
            f"http://localhost:{port['alert']}/v1": "speaks TLS: write https://",
            f"http://localhost:{port['nothing']}/v1": "without an answer: look into its log",
            f"http://localhost:{port['redirect']}/v1": "answers 308: set base_url to the address",
            f"http://localhost:{port['page']}/v1": "answers 400: base_url says http:// and",
            f"https://localhost:{port['plain']}/v1": "does not speak TLS: write http://",
            f"https://localhost:{unknown}/v1": "name the authority in ca_file",
            f"https://localhost:{expired}/v1": "has expired: renew it",
            "http://model.invalid/v1": "model.invalid",
            "http://model.test:99999/v1": "is no address of a server: correct base_url",
            "https://model.test/v1": "put user and password into the proxy's URL",
        }
        path = tmp_path / "models.toml"
        text = ""
        for number, url in enumerate(rows):
            files = 'ca_file = "ca.pem"' if "https://localhost" in url else ""
            way = proxy if url == "https://model.test/v1" else 'proxy = "direct"'
            text += f'[models.m{number}]\nbase_url = "{url}"\n{files}\n{way}\n'
        path.write_text(text)
        findings = await examine_models(Settings(models=str(path)), {})

    assert [finding.level for finding in findings] == ["ok", *["FAIL"] * len(rows)], findings
    for finding, said in zip(findings[1:], rows.values(), strict=True):
        assert said in finding.text


async def test_a_model_whose_package_is_missing_is_a_failure_with_the_command(monkeypatch) -> None:
    monkeypatch.setattr("shared.config.kinds.spec.find_spec", lambda name: None)
    findings = await examine_models(Settings(models="smollm2"), {})

    assert [finding.level for finding in findings] == ["ok", "FAIL"]
    assert "run `make local`" in findings[1].text
