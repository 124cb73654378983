"""Settings: every setting of the system, read from the environment once at start.

One frozen dataclass and no globals: the command line calls `Settings.from_env()` and passes the
object on; tests build `Settings(...)` directly. Names end in their unit. tests/test_docs.py
compares the fields with the table in docs/operations.md. Invariant: only this module reads
`TAILRACE_…` variables.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from shared.config.redis_url import is_cluster_url, read_redis_url
from shared.config.url_hosts import read_hosts
from shared.errors import ConfigurationError

PREFIX = "TAILRACE_"

# Answers that a model server may break off without a counted failure. More would let a prompt that
# makes its server crash restart the server again and again.
UPSTREAM_BREAKS_MAX = 2
NUMBERS_END = 2**40  # each number of the settings is below this

NO_CLUSTER_FOR_ARQ = (
    "arq cannot use a cluster: name a single server, as redis:// or redis+sentinel://"
)

# Every other number must be above 0.
MAY_BE_ZERO = (
    "grace_s", "address_connections_max", "head_wait_s", "queue_partitions",
    "owner_active_max", "owner_connections_max", "owner_prompts_per_min", "owner_tokens_per_min",
    "owner_tokens_per_day", "usage_days", "cancel_usage_s", "metrics_port", "grpc_port",
)  # fmt: skip
QUEUE_PARTITIONS_MAX = 64  # an idle worker looks at each of them
STREAM_ENCODINGS = ("gzip", "br", "zstd")
SWITCH = ("", "off", "on", "yes", "true", "1")  # the words of a setting that is off by default
CLUSTER_PARTITIONS = 8  # of the queue on a cluster, if the setting is 0
SILENT_LEASES_MAX = 3  # a worker without a report for so many `lease_s` counts as gone

# Kubernetes gives every container variables for each Service of its namespace. Those of a Service
# `tailrace` or `tailrace-api` begin as our settings do, and TAILRACE_PORT is the name of a setting.
# Each row: the end of the name, and the form of the value.
# Source: kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICE_ADDRESS = r"(tcp|udp|sctp)://\S+:\d+"
SERVICE_VARIABLES = tuple(
    (re.compile(f"{PREFIX}(\\w+_)?{name}", re.ASCII), re.compile(value, re.ASCII))
    for name, value in (
        ("SERVICE_HOST", r"[0-9a-fA-F.:]+"),
        (r"SERVICE_PORT(_\w+)?", r"\d+"),
        ("PORT", SERVICE_ADDRESS),
        (r"PORT_\d+_(TCP|UDP|SCTP)", SERVICE_ADDRESS),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", "tcp|udp|sctp"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_ADDR", r"[0-9a-fA-F.:]+"),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one process.

    Raises:
        ConfigurationError: a value is outside its bounds or choices.
    """

    redis_url: str = ""  # empty: `tailrace up` starts a private server
    host: str = "127.0.0.1"  # where an API node listens
    port: int = 8000
    grpc_port: int = 0  # where an API node listens for gRPC; 0: it does not
    tls_cert: str = ""  # PEM certificate with its chain: the port of a node speaks TLS, too
    tls_key: str = ""  # PEM file of its key
    tls_only: str = ""  # "on": the port answers no plain request
    models: str = ""  # path of the models file; empty: the built-in demo
    models_discover: str = ""  # "off": `up` does not look for model servers of this machine
    break_control: str = ""  # where the nodes of `up` ask for faults: HOST:PORT/TOKEN
    models_skip: str = ""  # names of models of the file that are not served, comma-separated
    jobs_redis_url: str = ""  # where arq keeps its queue; empty: the database after ours
    data_dir: str = ".tailrace"  # directory of the private server
    files_url: str = ""  # where files are stored; empty: the directory `files` of data_dir
    auth: str = ""  # "off": listen beyond loopback without credentials
    api_keys: str = ""  # `key:owner` or `key:owner:scopes`, comma-separated, or a file of them
    jwt_secret: str = ""  # checks tokens that are signed with HS256, HS384 or HS512
    jwt_secret_previous: str = ""  # the secret before it, still accepted while clients change
    jwt_jwks: str = ""  # URL or file of the public keys that check tokens signed otherwise
    jwt_audience: str = ""  # the audience that a token must name
    jwt_issuer: str = ""  # the issuer that a token must name
    limits: str = ""  # path of limits.toml: other limits of some owners
    owner_active_max: int = 0  # generations of one owner that wait or run; 0: no limit
    owner_connections_max: int = 0  # open readers of one owner; 0: no limit
    owner_prompts_per_min: int = 0  # of one owner; 0: no limit
    owner_tokens_per_min: int = 0  # of one owner; 0: no limit
    owner_tokens_per_day: int = 0  # of one owner, in UTC; 0: no limit
    hosts: str = ""  # host names that a node without credentials serves, comma-separated
    trusted_proxies: str = ""  # whose X-Forwarded-For counts: networks, comma-separated
    address_connections_max: int = 0  # connections of one address to one API node; 0: no bound
    cors_origins: str = ""  # origins that may read and open sockets, comma-separated, or *
    part_urls: str = ""  # hosts that URLs in prompts may name; empty: any; or "none"
    webhook_private: str = ""  # "allow": webhooks may go to addresses that are not public
    metrics_host: str = "127.0.0.1"  # where a worker or a jobs role shows its metrics
    metrics_port: int = 0  # 0: it shows none
    chat_history: str = ""  # "off": `tailrace chat` keeps no lines in a file
    timeline: str = ""  # "off": nothing is written to the timelines of generations
    log: str = ""  # text or json; empty: text on a terminal
    request_log: str = ""  # "on": a node logs each request; `up` sets it on a terminal
    log_level: str = "info"  # debug, info, warning or error; none logs prompts or answers

    worker_slots: int = 100  # generations that one worker runs at once
    lease_s: float = 3.0  # a worker without a renewal for this long loses its generations
    producer_lease_s: float = 30.0  # an outside producer that is silent for this long is lost
    lobehub_url: str = ""  # of LobeHub's server, which gets the results of tools
    lobehub_token: str = ""  # AGENT_GATEWAY_SERVICE_TOKEN of that server
    lobehub_lease_s: float = 1_800.0  # an operation that LobeHub's server leaves silent is lost
    attempts_max: int = 3  # failures before a generation ends `attempts_exhausted`
    redis_outage_s: float = 10.0  # a worker keeps its backends running this long without Redis
    queue_wait_s: float = 600.0  # a generation waits this long for a worker
    schedules_max: int = 100  # unfinished schedules of one owner
    queue_max: int = 10_000  # waiting generations per priority before `queue_full`
    # Partitions of the queue. All roles on one Redis need the same number. 0: 1, or 8 in a cluster
    queue_partitions: int = 0

    retention_s: float = 3_600.0  # a log is kept this long after its end
    heartbeat_s: float = 15.0  # time without output before a `: ping`
    head_wait_s: float = (
        10.0  # OpenAI's streams hold their head back this long for the first content
    )
    connection_age_s: float = 3_600.0  # a node cuts an older reader, which resumes on any node
    drain_s: float = 20.0  # time for a stopping process to finish its work
    keep_alive_s: float = 75.0  # an idle HTTP connection of a node is closed after this
    grace_s: float = 5.0  # no reader for this long cancels, in dialects that ask for it

    stream_encodings: str = ""  # encodings of SSE and NDJSON streams, in order: gzip, br, zstd
    subscriber_bytes_max: int = 1_048_576  # unsent bytes at which a slow reader is cut
    hub_bytes_max: int = 268_435_456  # encoded logs in the memory of a node
    body_bytes_max: int = 33_554_432  # one request body, one WebSocket message
    bodies_bytes_max: int = 268_435_456  # bodies that one node holds until they are accepted
    file_bytes_max: int = 209_715_200  # one uploaded file
    owner_file_bytes_max: int = 2_147_483_648  # all files of one owner
    owner_files_max: int = 10_000  # number of files of one owner
    files_free_bytes_min: int = 1_073_741_824  # with less free disk space uploads are refused
    answer_bytes_max: int = 16_777_216  # one answer
    owner_bytes_max: int = 268_435_456  # all prompts and logs of one owner in Redis
    streams_max: int = 10_000  # streams of one owner, as of Durable Streams
    streams_bytes_max: int = 268_435_456  # all streams of one owner
    stream_bytes_max: int = 67_108_864  # one stream; its oldest entries go first
    stream_entries_max: int = 200_000  # of one stream; its oldest entries go first
    stream_append_bytes_max: int = 4_194_304  # one append to a stream
    stream_idle_days: int = 30  # a stream without a time to live is deleted if unused for this long
    stream_life_days_max: int = 365  # the longest time to live of a stream
    stream_poll_s: float = 30.0  # a long poll of a stream waits this long
    stream_subscriptions_max: int = 100  # subscriptions of one owner to streams
    usage_days: int = 400  # the usage of each day is kept this long; 0: usage is not counted
    usage_owners_max: int = 100_000  # owners whose usage an operator can list
    redis_bytes_max: int = 1_073_741_824  # memory of the private server of `up`
    audio_bytes_max: int = 33_554_432  # one audio input
    audio_idle_s: float = 30.0  # an incomplete audio input without a new chunk for so long fails
    ws_idle_s: float = 300.0  # a socket idle for this long is closed
    ws_deflate: str = ""  # "on": permessage-deflate on WebSockets whose clients offer it

    upstream_connect_s: float = 10.0  # limits on one backend request
    upstream_outage_s: float = 60.0  # a prompt waits this long for a backend that is away
    backend_cooldown_s: float = 15.0  # the longest cool-down of a backend that fails
    upstream_first_token_s: float = 300.0
    upstream_idle_s: float = 60.0
    cancel_usage_s: float = 0.5  # a cancelled answer is read on for so long, for its usage
    upstream_total_s: float = 3_600.0
    upstream_line_bytes_max: int = 16_777_216

    url: str = "http://127.0.0.1:8000"  # the API node of the terminal commands
    key: str = ""  # the API key of the terminal commands

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and field.name != "port":
                may_be_zero = field.name in MAY_BE_ZERO and value == 0
                if not (may_be_zero or 0 < value < NUMBERS_END):  # also refuses nan and inf
                    bound = "0 or more" if field.name in MAY_BE_ZERO else "positive"
                    raise ConfigurationError(
                        f"{PREFIX}{field.name.upper()} must be {bound}, got {value!r}"
                    )
        if self.queue_partitions > QUEUE_PARTITIONS_MAX:
            raise ConfigurationError(
                f"{PREFIX}QUEUE_PARTITIONS must be at most {QUEUE_PARTITIONS_MAX}, "
                f"got {self.queue_partitions}"
            )
        for name in ("port", "metrics_port", "grpc_port"):
            if not 0 <= (port := getattr(self, name)) <= 65_535:
                variable = PREFIX + name.upper()
                raise ConfigurationError(f"{variable} must be from 0 to 65535, got {port}")
        if self.bodies_bytes_max < self.body_bytes_max:
            raise ConfigurationError(
                f"{PREFIX}BODIES_BYTES_MAX ({self.bodies_bytes_max}) must be at least "
                f"{PREFIX}BODY_BYTES_MAX ({self.body_bytes_max}): raise it, or lower the other"
            )
        if bool(self.tls_cert) != bool(self.tls_key) or (self.is_tls_only and not self.tls_cert):
            raise ConfigurationError(f"TLS needs both {PREFIX}TLS_CERT and {PREFIX}TLS_KEY")
        self._check_choices()
        self._check_encodings()
        read_hosts(self.part_urls)

    def _check_choices(self) -> None:
        for name, allowed in (
            ("timeline", ("", "off")),
            ("chat_history", ("", "off")),
            ("log", ("", "text", "json")),
            ("auth", ("", "off")),
            ("models_discover", ("", "off")),
            ("webhook_private", ("", "allow")),
            ("request_log", ("", "on")),
            ("ws_deflate", SWITCH),
            ("tls_only", SWITCH),
            ("log_level", ("debug", "info", "warning", "error")),
        ):
            if getattr(self, name) not in allowed:
                words = ", ".join(repr(word) for word in allowed if word)
                raise ConfigurationError(f"{PREFIX}{name.upper()} must be one of {words}")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigurationError(f"{PREFIX}URL must start with http:// or https://")
        for name in ("redis_url", "jobs_redis_url"):
            if url := getattr(self, name):
                read = read_redis_url(url, f"{PREFIX}{name.upper()}")
                if read.cluster and name == "jobs_redis_url":
                    raise ConfigurationError(f"{PREFIX}JOBS_REDIS_URL: {NO_CLUSTER_FOR_ARQ}")

    def _check_encodings(self) -> None:
        names = self.stream_encoding_names
        if len(set(names)) != len(names) or not {*names} <= {*STREAM_ENCODINGS}:
            raise ConfigurationError(
                f"{PREFIX}STREAM_ENCODINGS must name each of its encodings once, out of "
                f"{', '.join(STREAM_ENCODINGS)}: got {self.stream_encodings!r}"
            )

    @property
    def stream_encoding_names(self) -> tuple[str, ...]:
        """The encodings of streams, in the order of the setting; empty: they are not compressed."""
        return tuple(name.strip() for name in self.stream_encodings.split(",") if name.strip())

    @property
    def is_tls_only(self) -> bool:
        """Whether a node with a certificate refuses plain requests."""
        return self.tls_only not in ("", "off")

    @property
    def is_ws_deflate(self) -> bool:
        """Whether WebSockets may have permessage-deflate."""
        return self.ws_deflate not in ("", "off")

    @property
    def is_loopback(self) -> bool:
        """Whether an API node listens on this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def has_tokens(self) -> bool:
        """Whether clients may come with JSON web tokens."""
        return bool(self.jwt_secret or self.jwt_jwks)

    @property
    def generation_s_max(self) -> float:
        """How long a generation takes from its acceptance to its end, unless it waits anew, s.

        One wait for a worker, and the longest attempts. A generation lasts longer if it waits for
        a worker again after a failed attempt or a drain, or if an outside producer writes it:
        shared/log/lifetimes.py.
        """
        attempts_max = self.attempts_max + UPSTREAM_BREAKS_MAX
        return self.queue_wait_s + attempts_max * (self.upstream_total_s + self.upstream_outage_s)

    @property
    def is_cluster(self) -> bool:
        """Whether the Redis of all data is a cluster."""
        return is_cluster_url(self.redis_url)

    @property
    def partition_count(self) -> int:
        """The number of partitions of the queue."""
        return self.queue_partitions or (CLUSTER_PARTITIONS if self.is_cluster else 1)

    def named_redis_url(self) -> str:
        """Return the URL of the Redis server.

        Raises:
            ConfigurationError: the setting is empty.
        """
        if not self.redis_url:
            raise ConfigurationError(
                "TAILRACE_REDIS_URL is not set: name a server, or use `tailrace up`"
            )
        return self.redis_url

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read settings from `environ`, by default the process's environment.

        Raises:
            ConfigurationError: a value does not parse or is outside its bounds, or a `TAILRACE_…`
                variable names no setting: a misspelt variable must not be ignored. The variables of
                Kubernetes Services (`service_variables`) are ignored.
        """
        environ = os.environ if environ is None else environ
        casts = {"str": str, "int": int, "float": float}
        types = {PREFIX + f.name.upper(): (f.name, casts[str(f.type)]) for f in fields(cls)}
        values: dict[str, Any] = {}
        ignored = service_variables(environ)
        for name in sorted(n for n in environ if n.startswith(PREFIX) and n not in ignored):
            if name not in types:
                raise ConfigurationError(f"{name} is not a setting; docs/operations.md lists them")
            key, cast = types[name]
            try:
                values[key] = cast(environ[name].strip())
            except ValueError as exc:
                raise ConfigurationError(
                    f"{name}: {environ[name]!r} is not {cast.__name__}"
                ) from exc
        return cls(**values)


def is_given(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the environment has a value for the setting `name`."""
    variable = PREFIX + name.upper()
    return variable in environ and variable not in service_variables(environ)


def service_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the `TAILRACE_…` variables that Kubernetes has set for a Service.

    Name and value must both have the form: `TAILRACE_PORT=tcp://10.0.0.1:8000` is a Service's,
    `TAILRACE_PORT=8000` is ours.
    """
    return sorted(
        name
        for name, value in environ.items()
        if any(
            names.fullmatch(name) and values.fullmatch(value.strip())
            for names, values in SERVICE_VARIABLES
        )
    )
