"""compose.yaml, the image and nginx's configuration hold together and keep what docs promise.

They are read here, not run: not every machine has Docker.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import build_parser
from cli.sentinel_findings import FAILOVER_S
from shared.config.redis_url import parse_redis_url
from shared.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ("prometheus", "grafana")
APIS, WORKERS = ("api-1", "api-2"), ("worker-1", "worker-2")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return dict(loaded["services"])


@pytest.fixture(scope="module")
def nginx() -> str:
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    return re.sub(r"#.*", "", text)


def seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)s", text)
    assert match, text
    return float(match[1])


def directive(nginx: str, name: str) -> str:
    match = re.search(rf"^\s*{name}\s+([^;]+);", nginx, re.MULTILINE)
    assert match, name
    return match[1].strip()


def test_the_parts_are_all_there(services: dict[str, Any]) -> None:
    plain = {name for name, service in services.items() if "profiles" not in service}

    assert plain == {"redis", *APIS, *WORKERS, "jobs", "nginx"}
    assert set(services) - plain == {*MONITORING}


def test_one_service_builds_the_image_and_no_service_pulls_it(services: dict[str, Any]) -> None:
    own = {name: service for name, service in services.items() if service["image"] == "tailrace"}
    builders = [name for name, service in own.items() if "build" in service]

    assert set(own) == {*APIS, *WORKERS, "jobs"} and len(builders) == 1
    assert all(own[name]["pull_policy"] == "never" for name in own.keys() - set(builders))


@pytest.mark.parametrize("name", [*APIS, *WORKERS, "jobs"])
def test_a_relative_name_of_the_models_file_is_no_name_of_a_volume(
    name: str, services: dict[str, Any]
) -> None:
    (models,) = (mount for mount in services[name]["volumes"] if isinstance(mount, dict))

    assert models["type"] == "bind" and models["source"] == "${MODELS_FILE:-/dev/null}"
    assert models["read_only"] and not models["bind"]["create_host_path"]


@pytest.mark.parametrize("name", [*APIS, *WORKERS, "jobs"])
def test_a_role_is_started_with_settings_that_exist(name: str, services: dict[str, Any]) -> None:
    environ = {
        key: re.sub(r"\$\{[^}]*\}", "", value)  # as compose sees it with nothing set
        for key, value in services[name]["environment"].items()
    }

    assert build_parser().parse_args(services[name]["command"]).command == name.split("-")[0]
    assert Settings.from_env(environ).redis_url == "redis://redis:6379/0"


@pytest.mark.parametrize("name", [*APIS, *WORKERS, "jobs"])
def test_a_role_has_its_drain_time_before_it_is_killed(name: str, services: dict[str, Any]) -> None:
    assert seconds(services[name]["stop_grace_period"]) > Settings().drain_s


@pytest.mark.parametrize("name", APIS)
def test_a_node_asks_the_operator_about_credentials(name: str, services: dict[str, Any]) -> None:
    """It listens beyond loopback; nothing in the file lets everybody in by itself."""
    environ = services[name]["environment"]

    assert not Settings(host=environ["TAILRACE_HOST"]).is_loopback
    assert environ["TAILRACE_API_KEYS"] == "${TAILRACE_API_KEYS:-}"
    assert environ["TAILRACE_AUTH"] == "${TAILRACE_AUTH:-}"
    assert environ["TAILRACE_HOSTS"] == "${TAILRACE_HOSTS:-}"
    assert "ports" not in services[name]


def test_the_jobs_role_knows_the_same_owners_as_the_nodes(services: dict[str, Any]) -> None:
    keys = [services[name]["environment"]["TAILRACE_API_KEYS"] for name in (*APIS, "jobs")]

    assert len(set(keys)) == 1


@pytest.mark.parametrize("name", APIS)
def test_a_node_is_healthy_when_it_is_ready(name: str, services: dict[str, Any]) -> None:
    program = services[name]["healthcheck"]["test"][-1]
    compile(program, "healthcheck", "exec")

    assert f":{services[name]['environment']['TAILRACE_PORT']}/readyz" in program


def test_nodes_and_jobs_share_the_files(services: dict[str, Any]) -> None:
    for name in (*APIS, "jobs"):
        (place,) = [
            mount.partition(":")[2] for mount in services[name]["volumes"] if "files:" in mount
        ]
        assert services[name]["environment"]["TAILRACE_FILES_URL"].startswith(f"{place}/")
        # A new volume takes over whose the image's directory is.
        assert f"install -d -o tailrace -m 0700 {place}" in (ROOT / "Dockerfile").read_text()


def test_redis_has_a_bound_and_its_container_room_for_a_rewrite(services: dict[str, Any]) -> None:
    """The rewrite of the append-only file forks the server: at worst it takes as much again."""
    words = services["redis"]["command"]
    bound = words[words.index("--maxmemory") + 1]
    gigabytes = re.fullmatch(r"\$\{REDIS_MAXMEMORY:-(\d+)gb\}", bound)
    megabytes = re.fullmatch(r"\$\{REDIS_MEM_LIMIT:-(\d+)m\}", services["redis"]["mem_limit"])

    assert gigabytes and megabytes
    assert int(megabytes[1]) > 2 * 1024 * int(gigabytes[1])


def test_redis_keeps_everything_and_evicts_nothing(services: dict[str, Any]) -> None:
    words = services["redis"]["command"][1:]
    options = dict(zip(words[::2], words[1::2], strict=True))

    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert "ports" not in services["redis"]


def test_prometheus_scrapes_every_role_at_its_port(services: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "compose" / "prometheus.yml").read_text())
    targets = [
        target
        for job in scraped["scrape_configs"]
        for config in job["static_configs"]
        for target in config["targets"]
    ]
    for name in (*WORKERS, "jobs"):
        environ = services[name]["environment"]
        assert environ["TAILRACE_METRICS_HOST"] == "0.0.0.0"
        assert f"{name}:{environ['TAILRACE_METRICS_PORT']}" in targets
        assert "ports" not in services[name]  # the metrics have no credentials
    for name in APIS:
        assert f"{name}:{services[name]['environment']['TAILRACE_PORT']}" in targets
    assert len(targets) == len({*APIS, *WORKERS, "jobs"})


@pytest.mark.parametrize("name", MONITORING)
def test_every_file_of_the_monitoring_is_there(name: str, services: dict[str, Any]) -> None:
    mounts = [mount.split(":") for mount in services[name]["volumes"]]

    assert all((ROOT / source).exists() for source, *_ in mounts if source.startswith("./"))
    assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])


@pytest.mark.parametrize("name", ["redis", *APIS, *WORKERS, "jobs", "nginx", *MONITORING])
def test_a_service_can_do_no_more_than_it_must(name: str, services: dict[str, Any]) -> None:
    service = services[name]

    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert not any("docker.sock" in mount for mount in service.get("volumes", []))


def test_only_nginx_has_capabilities_and_no_others_than_it_needs(services: dict[str, Any]) -> None:
    """To listen on port 80, to own its folders, and to make its workers another user's."""
    added = {name: service["cap_add"] for name, service in services.items() if "cap_add" in service}

    assert added == {"nginx": ["CHOWN", "NET_BIND_SERVICE", "SETGID", "SETUID"]}


def test_nobody_else_is_root(services: dict[str, Any]) -> None:
    assert services["redis"]["user"] == "redis"
    assert re.search(r"^USER tailrace$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert not any("user" in services[name] for name in (*APIS, *WORKERS, "jobs"))


def test_what_is_written_has_a_place(nginx: str, services: dict[str, Any]) -> None:
    """Everything else is read-only."""
    assert all(services[name]["tmpfs"] == ["/tmp"] for name in (*APIS, *WORKERS, "jobs"))
    assert services["redis"]["volumes"] == ["redis:/data"]
    pid = directive(nginx, "pid")
    assert any(pid.startswith(f"{place}/") for place in services["nginx"]["tmpfs"])
    assert "/var/cache/nginx" in services["nginx"]["tmpfs"]


def test_images_are_named_by_digest_where_one_is_known(services: dict[str, Any]) -> None:
    digest = re.compile(r"\S+:\S+@sha256:[0-9a-f]{64}")
    (base,) = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert digest.fullmatch(services["redis"]["image"])
    assert digest.fullmatch(base)
    page = (ROOT / "docs" / "security.md").read_text()
    assert f"docker buildx imagetools inspect {services['nginx']['image']}" in page


def test_nginx_is_published_on_loopback_only(services: dict[str, Any]) -> None:
    assert services["nginx"]["ports"] == ["${PUBLISH:-127.0.0.1:8080}:80"]


def test_nginx_knows_every_node(nginx: str, services: dict[str, Any]) -> None:
    port = services["api-1"]["environment"]["TAILRACE_PORT"]

    assert set(re.findall(r"server (\S+) max_fails", nginx)) == {f"{name}:{port}" for name in APIS}


def test_nginx_holds_nothing_back(nginx: str) -> None:
    assert directive(nginx, "proxy_buffering") == "off"
    assert directive(nginx, "proxy_http_version") == "1.1"
    assert directive(nginx, "gzip") == "off"


def test_nginx_waits_longer_than_a_heartbeat(nginx: str) -> None:
    assert seconds(directive(nginx, "proxy_read_timeout")) > 2 * Settings().heartbeat_s


def test_nginx_lets_the_node_refuse_a_large_body(nginx: str) -> None:
    size = directive(nginx, "client_max_body_size")

    assert size.endswith("m")
    assert int(size[:-1]) * 2**20 > Settings().body_bytes_max
    uploads = nginx.partition("location = /v1/files")[2]
    assert int(directive(uploads, "client_max_body_size")[:-1]) * 2**20 > Settings().file_bytes_max
    assert directive(uploads, "proxy_request_buffering") == "off"


def test_nginx_writes_no_query_to_a_log(nginx: str) -> None:
    form = directive(nginx, "log_format")

    assert not re.search(r"\$(request|request_uri|args|query_string|http_authorization)\b", form)
    assert directive(nginx, "error_log").endswith(" crit")


def test_nginx_passes_websockets_on(nginx: str) -> None:
    assert "proxy_set_header Upgrade $http_upgrade;" in nginx
    assert "proxy_set_header Connection $connection_header;" in nginx


def test_the_braces_of_the_nginx_configuration_match(nginx: str) -> None:
    assert nginx.count("{") == nginx.count("}")


def test_the_image_has_what_it_copies() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert (ROOT / source).exists(), source


def test_the_image_lets_everything_through_that_it_copies() -> None:
    copied = re.findall(r"^COPY (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().split()

    assert {f"!{source}" for source in copied} <= set(ignored)


def test_the_images_packages_are_those_that_are_tested() -> None:
    """The image's lock is a part of the other one, pin by pin."""
    pins = [
        set(re.findall(r"^([a-z0-9-]+==\S+)", (ROOT / path).read_text(), re.MULTILINE))
        for path in ("deploy/requirements.lock", "requirements.lock")
    ]

    assert pins[0] < pins[1]


LOCKS = ["requirements.lock", "deploy/requirements.lock", "bench/requirements.lock"]


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_has_hashes_and_names_no_host(path: str) -> None:
    text = (ROOT / path).read_text()
    for pin in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in pin, pin

    assert "://" not in text
    assert "--index" not in text


def test_what_ci_runs_can_be_run() -> None:
    path = ROOT / ".ci" / "run"

    assert os.access(path, os.X_OK)
    assert "make check" in path.read_text()


# compose.sentinel.yaml

SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")


@pytest.fixture(scope="module")
def with_sentinel() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.sentinel.yaml").read_text())
    return dict(loaded["services"])


def test_the_sentinel_file_adds_a_replica_and_sentinels(
    services: dict[str, Any], with_sentinel: dict[str, Any]
) -> None:
    assert set(with_sentinel) == set(services) - {"nginx", *MONITORING} | {
        "redis-replica",
        *SENTINELS,
    }


@pytest.mark.parametrize("name", [*APIS, *WORKERS, "jobs"])
def test_a_role_asks_every_sentinel(name: str, with_sentinel: dict[str, Any]) -> None:
    settings = Settings.from_env(with_sentinel[name]["environment"])
    sentinels = parse_redis_url(settings.redis_url).sentinels

    assert sentinels is not None
    assert sentinels.hosts == tuple((host, 26379) for host in SENTINELS)
    assert all(f" {sentinels.service} " in script_of(with_sentinel[host]) for host in SENTINELS)


def test_a_failover_is_shorter_than_the_outage_that_workers_survive(
    with_sentinel: dict[str, Any],
) -> None:
    found = re.search(r"down-after-milliseconds \S+ (\d+)", script_of(with_sentinel["sentinel-1"]))

    assert found
    assert int(found[1]) / 1000 + FAILOVER_S < Settings().redis_outage_s


def test_the_replica_has_the_masters_settings_and_keeps_them_when_it_is_promoted(
    services: dict[str, Any], with_sentinel: dict[str, Any]
) -> None:
    alone = services["redis"]["command"]
    master, replica = (with_sentinel[name] for name in ("redis", "redis-replica"))

    assert master["command"] == [*alone, "--replica-announce-ip", "redis"]
    expected = [*alone, "--replica-announce-ip", "redis-replica", "--replicaof", "redis 6379"]
    assert replica["command"] == expected
    for member in ("image", "user", "read_only", "cap_drop", "security_opt", "mem_limit"):
        assert replica[member] == services["redis"][member]


@pytest.mark.parametrize("name", SENTINELS)
def test_a_sentinel_can_do_no_more_than_it_must_and_keeps_its_file(
    name: str, services: dict[str, Any], with_sentinel: dict[str, Any]
) -> None:
    sentinel = with_sentinel[name]

    for member in ("image", "user", "read_only", "cap_drop", "security_opt", "restart"):
        assert sentinel[member] == services["redis"][member]
    assert sentinel["volumes"] == [f"{name}:/data"]
    assert "dir /data" in script_of(sentinel)


# compose.cluster.yaml

SERVERS = tuple(f"redis-{number}" for number in range(1, 7))


@pytest.fixture(scope="module")
def with_cluster() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "compose.cluster.yaml").read_text())
    return dict(loaded["services"])


def test_the_cluster_file_adds_six_servers_and_what_joins_them(
    services: dict[str, Any], with_cluster: dict[str, Any]
) -> None:
    added = {*SERVERS, "redis-cluster"}

    assert set(with_cluster) == set(services) - {"nginx", "redis", *MONITORING} | added
    assert set(with_cluster["redis-cluster"]["depends_on"]) == set(SERVERS)
    assert all(f" {name}" in script_of(with_cluster["redis-cluster"]) for name in SERVERS)
    assert "--cluster-replicas 1" in script_of(with_cluster["redis-cluster"])


@pytest.mark.parametrize("name", [*APIS, *WORKERS, "jobs"])
def test_a_role_knows_the_servers_of_the_cluster_and_the_one_for_arq(
    name: str, with_cluster: dict[str, Any]
) -> None:
    settings = Settings.from_env(with_cluster[name]["environment"])

    assert parse_redis_url(settings.redis_url).cluster == tuple((host, 6379) for host in SERVERS)
    assert parse_redis_url(settings.jobs_redis_url).host == "redis"
    assert "redis-cluster" in with_cluster[name]["depends_on"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_of_the_cluster_keeps_its_data_and_can_do_no_more_than_it_must(
    name: str, services: dict[str, Any], with_cluster: dict[str, Any]
) -> None:
    server, script = with_cluster[name], script_of(with_cluster[name])

    for member in ("image", "user", "read_only", "cap_drop", "security_opt", "restart"):
        assert server[member] == services["redis"][member]
    assert server["mem_limit"] == services["redis"]["mem_limit"]
    assert server["volumes"] == [f"{name}:/data"] and "--dir /data" in script
    assert server["hostname"] == name and "hostname" in script
    for option in ("appendonly yes", "maxmemory-policy noeviction", "require-full-coverage no"):
        assert option in script
    timeout = re.search(r"cluster-node-timeout (\d+)", script)
    assert timeout and 2 * int(timeout[1]) / 1000 < Settings().redis_outage_s


def script_of(service: dict[str, Any]) -> str:
    return str(service["command"][-1])
