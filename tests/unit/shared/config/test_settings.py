"""Settings: valid and invalid variables."""

from __future__ import annotations

import dataclasses

import pytest

from shared.config.settings import Settings, service_variables
from shared.errors import ConfigurationError


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_other_variables_are_ignored() -> None:
    assert Settings.from_env({"PATH": "/bin", "LEASE_S": "9"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("TAILRACE_LEASE_S", "0.5", "lease_s", 0.5),
        ("TAILRACE_PORT", " 9000 ", "port", 9000),
        ("TAILRACE_PORT", "0", "port", 0),
        ("TAILRACE_GRACE_S", "0", "grace_s", 0.0),
        ("TAILRACE_REDIS_URL", "unix:///tmp/s", "redis_url", "unix:///tmp/s"),
        ("TAILRACE_LOG", "json", "log", "json"),
    ],
)
def test_a_variable_sets_its_field(name: str, text: str, field: str, value: object) -> None:
    assert getattr(Settings.from_env({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("TAILRACE_LEASES", "3", "is not a setting"),
        ("TAILRACE_lease_s", "3", "is not a setting"),
        ("TAILRACE_LEASE_S", "soon", "is not float"),
        ("TAILRACE_LEASE_S", "0", "must be positive"),
        ("TAILRACE_LEASE_S", "-1", "must be positive"),
        ("TAILRACE_LEASE_S", "nan", "must be positive"),
        ("TAILRACE_LEASE_S", "inf", "must be positive"),
        ("TAILRACE_WORKER_SLOTS", "1.5", "is not int"),
        ("TAILRACE_GRACE_S", "-1", "0 or more"),
        ("TAILRACE_GRACE_S", "nan", "0 or more"),
        ("TAILRACE_PORT", "65536", "from 0 to 65535"),
        ("TAILRACE_PORT", "-1", "from 0 to 65535"),
        ("TAILRACE_LOG", "xml", "must be one of"),
        ("TAILRACE_LOG_LEVEL", "loud", "must be one of"),
        ("TAILRACE_AUTH", "no", "must be one of"),
        ("TAILRACE_REDIS_URL", "localhost:6379", "must start with"),
        ("TAILRACE_JOBS_REDIS_URL", "redis+cluster://a", "arq cannot use a cluster"),
        ("TAILRACE_REDIS_URL", "redis+sentinel://a", "the service is missing"),
    ],
)
def test_a_bad_variable_is_named_with_what_is_wrong(name: str, text: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint) as caught:
        Settings.from_env({name: text})

    assert name in str(caught.value)


# What a pod gets for a Service `tailrace` with the port `http`, and for one `tailrace-redis`.
SERVICES = {
    "TAILRACE_SERVICE_HOST": "10.96.0.7",
    "TAILRACE_SERVICE_PORT": "8000",
    "TAILRACE_SERVICE_PORT_HTTP": "8000",
    "TAILRACE_PORT": "tcp://10.96.0.7:8000",
    "TAILRACE_PORT_8000_TCP": "tcp://10.96.0.7:8000",
    "TAILRACE_PORT_8000_TCP_PROTO": "tcp",
    "TAILRACE_PORT_8000_TCP_PORT": "8000",
    "TAILRACE_PORT_8000_TCP_ADDR": "10.96.0.7",
    "TAILRACE_REDIS_SERVICE_HOST": "fd00::7",
    "TAILRACE_REDIS_PORT": "udp://[fd00::7]:6379",
    "TAILRACE_REDIS_PORT_6379_UDP_ADDR": "fd00::7",
}


def test_the_variables_of_kubernetes_services_are_ignored() -> None:
    assert Settings.from_env(SERVICES | {"TAILRACE_HOST": "::1"}) == Settings(host="::1")
    assert service_variables(SERVICES | {"TAILRACE_HOST": "::1"}) == sorted(SERVICES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TAILRACE_PORT", "tcp"),
        ("TAILRACE_PORT", "http://10.0.0.1:80"),
        ("TAILRACE_SERVICE_HOST", "my-host"),
        ("TAILRACE_API_PORT", "8000"),
        ("TAILRACE_PORTS", "tcp://10.0.0.1:80"),
        ("TAILRACE_REDIS_URL", "tcp://10.0.0.1:6379"),
    ],
)
def test_only_name_and_form_together_make_a_service_variable(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_env({name: text})


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_loopback_is_recognised(host: str, is_loopback: bool) -> None:
    assert Settings(host=host).is_loopback is is_loopback


def test_every_number_has_a_unit_or_is_a_count() -> None:
    units = ("_s", "_bytes_max", "_bytes_min", "_max", "_slots", "_partitions", "_per_min", "_days")
    for field in dataclasses.fields(Settings):
        if field.type in ("int", "float") and not field.name.endswith("port"):
            assert field.name.endswith((*units, "_per_day")), field.name


def test_the_longest_generation_has_all_attempts_and_all_outages() -> None:
    settings = Settings(queue_wait_s=100, attempts_max=3, upstream_total_s=10, upstream_outage_s=1)

    # Two answers that break off do not count as failures.
    assert settings.generation_s_max == 100 + (3 + 2) * (10 + 1)


def test_a_node_must_have_room_for_one_body() -> None:
    Settings(body_bytes_max=1_000, bodies_bytes_max=1_000)
    with pytest.raises(ConfigurationError, match="TAILRACE_BODIES_BYTES_MAX"):
        Settings(body_bytes_max=1_001, bodies_bytes_max=1_000)


def test_stream_encodings_are_a_list_of_known_names() -> None:
    assert Settings().stream_encoding_names == ()
    assert Settings(stream_encodings=" zstd, gzip").stream_encoding_names == ("zstd", "gzip")
    for wrong in ("deflate", "gzip,gzip", "gzip br"):
        with pytest.raises(ConfigurationError, match="STREAM_ENCODINGS must name each"):
            Settings(stream_encodings=wrong)
