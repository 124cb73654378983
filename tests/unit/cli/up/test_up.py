"""What `up` starts and prints; tests/integration/test_up.py runs it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.up.discovery import FoundServer
from cli.up.found_models import find_models
from cli.up.ports import choose_metrics_ports, choose_ports, free_ports
from cli.up.running import child_environ
from cli.up.up import (
    greeting,
    redis_address,
    role_children,
    role_command,
    skip_unset_models,
    up,
)
from shared.config.models import load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError

HOST = "127.0.0.1"


def test_a_free_port_is_returned() -> None:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]

    assert free_ports(HOST, port, 1) == [port]


def test_port_0_gives_different_ports() -> None:
    assert len(set(free_ports(HOST, 0, 5))) == 5


def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} on {HOST} is taken"):
            free_ports(HOST, port, 1)


def test_any_port_in_use_of_several_is_an_error() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match="is taken"):
            free_ports(HOST, port - 1, 2)


def test_the_next_free_ports_are_taken_when_nobody_named_a_port(capfd) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(host=HOST, port=port)

        chosen = choose_ports(settings, 2, is_named=False)

        assert chosen[0] > port and chosen[1] == chosen[0] + 1
        assert f"port {port} is taken" in capfd.readouterr().err
        with pytest.raises(ConfigurationError, match='make up ARGS="--port 8010"'):
            choose_ports(settings, 2, is_named=True)


def test_free_ports_are_chosen_without_a_word(capfd) -> None:
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]

    assert choose_ports(Settings(host=HOST, port=port), 1, is_named=False) == [port]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("host", ["203.0.113.9", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_an_error(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        free_ports(host, 8000, 1)


def test_ports_beyond_65535_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="no room"):
        free_ports(HOST, 65_535, 2)


@pytest.mark.parametrize("counts", [{"api": 0}, {"workers": 0}, {"workers": 65}, {"api": -1}])
def test_counts_are_bounded(counts: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="must be from 1 to"):
        up(Settings(), **counts)


def test_an_invalid_models_file_is_an_error_before_the_start() -> None:
    with pytest.raises(ConfigurationError, match="TAILRACE_MODELS"):
        up(Settings(models="/no/such/file"))


def serve_ollama(monkeypatch: pytest.MonkeyPatch, *models: str) -> None:
    async def found() -> list[FoundServer]:
        return [FoundServer("Ollama", "ollama", "http://localhost:11434", models)] if models else []

    monkeypatch.setattr("cli.up.found_models.find_servers", found)


def test_found_models_are_served_behind_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_ollama(monkeypatch, "qwen3:8b", "demo")
    said: list[str] = []
    settings = find_models(Settings(data_dir=str(tmp_path / "data")), said.append)

    models = load_models(settings.models)
    backends = [model.backend for model in models.values()]
    assert backends == ["demo", "ollama", "ollama", "demo_transcriber"]
    assert list(models) == ["demo", "qwen3:8b", "demo-2", "demo-transcriber"]
    assert child_environ(settings, "text")["TAILRACE_MODELS"] == settings.models
    assert said == ["tailrace up: found Ollama at http://localhost:11434: qwen3:8b, demo"]


@pytest.mark.parametrize(
    ("models", "settings"),
    [((), {}), (("m",), {"models_discover": "off"}), (("m",), {"models": "mine.toml"})],
)
def test_nothing_is_written_where_nothing_is_looked_for_or_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    models: tuple[str, ...],
    settings: dict[str, str],
) -> None:
    serve_ollama(monkeypatch, *models)
    given = Settings(data_dir=str(tmp_path / "data"), **settings)

    assert find_models(given, print) == given
    assert not (tmp_path / "data").exists()


def test_each_role_gets_its_drain_time() -> None:
    settings = Settings(drain_s=3.0)
    children = role_children(settings, [8000, 8001], 2, role_command)

    assert [child.name for child in children] == [
        *("api 8000", "api 8001", "worker 1", "worker 2", "jobs")
    ]
    assert {child.kill_after_s for child in children} == {8.0}
    assert children[1].argv[-4:] == ("--host", HOST, "--port", "8001")
    assert all("--lifeline" in child.argv for child in children)


def test_each_node_gets_a_port_for_grpc_if_the_first_one_has_one() -> None:
    children = role_children(Settings(grpc_port=9000), [8000, 8001], 1, role_command)

    assert [child.argv[-2:] for child in children[:2]] == [
        ("--grpc-port", "9000"),
        ("--grpc-port", "9001"),
    ]
    assert not any("--grpc-port" in child.argv for child in children[2:])


def test_roles_get_the_redis_url_and_the_log_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTHER", "kept")
    environ = child_environ(Settings(redis_url="unix:///s", data_dir="some/where"), "text")

    assert environ["TAILRACE_DATA_DIR"] == str(Path("some/where").resolve())
    assert environ["TAILRACE_REDIS_URL"] == "unix:///s"
    assert environ["TAILRACE_LOG"] == "text"
    assert environ["OTHER"] == "kept"


def test_the_greeting_names_every_node() -> None:
    lines = greeting(Settings(redis_url="unix:///tmp/s"), [8000, 8001], 1.0)
    text = "\n".join(lines)

    assert "page    http://127.0.0.1:8000/" in text
    assert "node    http://127.0.0.1:8001/" in text
    assert "redis-cli -s /tmp/s XRANGE" in text
    assert "authorization" not in text


def test_workers_and_the_jobs_role_get_ports_for_their_metrics() -> None:
    settings = Settings(redis_url="unix:///s")
    children = role_children(settings, [8000], 2, role_command, metrics=[8001, 8003, 8004])

    flags = {child.name: child.argv[-2:] for child in children}
    assert flags["worker 1"] == ("--metrics-port", "8001")
    assert flags["worker 2"] == ("--metrics-port", "8003")
    assert flags["jobs"] == ("--metrics-port", "8004")
    lines = greeting(settings, [8000], 1.0, metrics=[8001, 8003, 8004])
    shown = "  metrics 127.0.0.1: workers 8001, 8003, jobs 8004; of each node at /metrics"
    assert shown in lines


def test_ports_for_metrics_are_the_next_free_ones() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = choose_metrics_ports(Settings(), 3, after=port - 1)
        named = choose_metrics_ports(Settings(metrics_port=port), 1, after=1)

    assert len(found) == 3 and port not in found and min(found) > port
    assert named and named[0] > port


def test_without_free_ports_there_are_none() -> None:
    assert choose_metrics_ports(Settings(metrics_port=65_535), 2, after=1) == []


def test_the_greeting_shows_where_to_put_a_key() -> None:
    text = "\n".join(greeting(Settings(redis_url="unix:///s", api_keys="SECRET:me"), [80], 1.0))

    assert "authorization: Bearer YOUR-KEY" in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    ("host", "url"), [("0.0.0.0", "http://127.0.0.1:80/"), ("::1", "http://[::1]:80/")]
)
def test_the_greeting_has_a_url_that_can_be_opened(host: str, url: str) -> None:
    assert url in "\n".join(greeting(Settings(host=host, redis_url="unix:///s"), [80], 1.0))


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("unix:///tmp/s", "-s /tmp/s"),
        ("unix:///tmp/s?db=0", "-s /tmp/s"),
        ("redis://host:1/2", "-u redis://host:1/2"),
        ("rediss://me:SECRET@host/0?password=SECRET", "-u rediss://host/0"),
        (
            "redis+sentinel://me:secret@s1:1,s2:2/mine/3",
            "-u redis://$(redis-cli -h s1 -p 1 SENTINEL GET-MASTER-ADDR-BY-NAME mine"
            " | paste -sd:)/3",
        ),
    ],
)
def test_a_password_is_not_shown(url: str, option: str) -> None:
    assert redis_address(url) == option


FILE = """
[models.demo]
backend = "demo"
[models.keyed]
base_url = "https://a.test/v1"
api_key_env = "A_KEY"
[models.header]
base_url = "https://a.test/v1"
headers = {api-key = "${B_KEY}"}
proxy = "http://u:${C_KEY}@p.test:1"
"""


def test_models_whose_keys_are_not_set_are_left_out(tmp_path: Path, monkeypatch, capfd) -> None:
    path = tmp_path / "models.toml"
    path.write_text(FILE)
    monkeypatch.setenv("C_KEY", "x")
    settings = skip_unset_models(Settings(models=str(path)))

    assert list(load_models(settings.models, settings.models_skip)) == ["demo"]
    said = capfd.readouterr().err
    assert "the model keyed is left out: set A_KEY" in said
    assert "the model header is left out: set B_KEY\n" in said
    assert child_environ(settings, "text")["TAILRACE_MODELS_SKIP"] == "keyed,header"
    assert child_environ(settings, "text")["TAILRACE_MODELS"] == str(path)


def test_models_whose_keys_are_set_are_served(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "models.toml"
    path.write_text(FILE)
    for name in ("A_KEY", "B_KEY", "C_KEY"):
        monkeypatch.setenv(name, "x")

    assert skip_unset_models(Settings(models=str(path))).models_skip == ""


def test_a_model_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr("shared.config.kinds.spec.find_spec", lambda name: None)
    path = tmp_path / "models.toml"
    path.write_text('[models.smollm2]\nbackend = "local"\n\n[models.demo]\nbackend = "demo"\n')
    settings = skip_unset_models(Settings(models=str(path)))

    assert list(load_models(settings.models, settings.models_skip)) == ["demo"]
    assert "the model smollm2 is left out" in capfd.readouterr().err


def test_the_model_of_the_command_line_has_to_be_installed(monkeypatch) -> None:
    monkeypatch.setattr("shared.config.kinds.spec.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="run `make local`"):
        skip_unset_models(Settings(models="smollm2"))


def test_a_file_without_a_usable_model_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models.keyed]\nbase_url = "https://a.test/v1"\napi_key_env = "A_KEY"\n')
    with pytest.raises(ConfigurationError, match="no model is left that can run"):
        skip_unset_models(Settings(models=str(path)))
