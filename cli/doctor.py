"""`tailrace doctor`: checks what a role needs on this machine, and says how to fix problems.

Prints one line per finding: ok, warn or FAIL. The `judge_…` functions are pure; the `examine_…`
functions do the I/O. Invariant: a finding that is not ok says what to do. The doctor changes
nothing, except that `--continuation` stores what it has seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from api.edge.auth import Authenticator
from api.transport.peer import TrustedProxies
from cli.backend_findings import examine_backends
from cli.busy import busy
from cli.continuation import doctor_continuation
from cli.finding import Finding
from cli.models import examine_found
from cli.redis_findings import examine_redis
from cli.up.privacy import is_open_file, open_directories
from cli.up.private_server import find_server, server_version
from shared.config.credentials import KEY_CHARACTERS_MIN, named
from shared.config.models import ANY, Model, load_models, missing_parts
from shared.config.settings import Settings, service_variables
from shared.errors import ConfigurationError, FilesUnavailable
from shared.files.objects import (
    ADVICE,
    ObjectStore,
    check_directory,
    directory_of,
    existing_part,
    free_bytes_at,
)
from shared.text.plain_text import plain_line
from shared.text.redaction import redact
from workers.backends.contract import SetUpFault
from workers.backends.http.cause import explain
from workers.backends.http.exchange import AnswerIsTls, ExchangeError
from workers.backends.http.proxy import ProxyRefused
from workers.backends.http.tls import client_context
from workers.backends.http.upstream_http import UpstreamAddress
from workers.backends.reading.failure import refusal
from workers.backends.route import Route, find_route

PYTHON_MIN = (3, 11)
MODELS_ANSWER_S = 3.0  # for a model server to answer
FILES_ANSWER_S = 10.0  # for the bucket of the files to answer
MODELS_ANSWER_BYTES_MAX = 4_194_304
REFUSAL_BYTES_MAX = 65_536  # of an error response that are read
TLS_ALERT_SHOWN = "\\x15\\x03"  # as aiohttp quotes the first bytes of a TLS server
OPEN_FILES_MIN = 256  # with fewer, a node can hardly serve readers
OPEN_FILES_ENOUGH = 4_096
OPEN_FILES_OWN = 64  # what a process opens besides the sockets of its readers
# Free space if the append-only file of the private Redis is on the same disk: Redis rewrites it
# beside the old one.
SHARED_DISK_BYTES_MIN = 5 * 2**30


def doctor(settings: Settings, *, continuation: str = "", is_json: bool = False) -> int:
    """Print all findings; return 1 if one of them is a FAIL, otherwise 0.

    Args:
        continuation: only try how this model continues answers.
        is_json: print one object, `{"findings": [{"level", "subject", "text"}]}`.
    """
    with busy("examining"):
        if continuation:
            findings = doctor_continuation(settings, continuation)
        else:
            findings = asyncio.run(examine(settings, os.environ))
    # The text may quote a server, and a URL in it may hold a password.
    shown = [
        finding._replace(text=plain_line(redact(" ".join(finding.text.split()))))
        for finding in findings
    ]
    if is_json:
        print(json.dumps({"findings": [finding._asdict() for finding in shown]}))
    for finding in [] if is_json else shown:
        print(f"{finding.level:<5} {finding.subject:<8} {finding.text}")
    return int(any(finding.level == "FAIL" for finding in findings))


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Check everything.

    Args:
        environ: holds the API keys that the models file names.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # roles raise the soft limit themselves
    return [
        judge_python(sys.version_info[:3]),
        judge_open_files(hard, is_unlimited=hard == resource.RLIM_INFINITY),
        examine_address(settings),
        *examine_variables(environ),
        *examine_access(settings),
        *(await examine_token_keys(settings)),
        *(await examine_redis(settings) if settings.redis_url else [examine_private_server()]),
        await examine_files(settings),
        *examine_space(settings),
        *examine_privacy(settings),
        *(await examine_models(settings, environ)),
        *(await examine_found(settings)),
        *(await examine_backends(settings)),
    ]


def judge_python(version: tuple[int, ...]) -> Finding:
    """Judge the version of Python, as `sys.version_info` begins."""
    text = ".".join(map(str, version))
    if version[:2] < PYTHON_MIN:
        return Finding("FAIL", "python", f"{text}: install Python 3.11 or newer")
    return Finding("ok", "python", text)


def judge_open_files(hard: int, *, is_unlimited: bool = False) -> Finding:
    """Judge the hard limit of open files per process: each reader needs one."""
    if is_unlimited or hard >= OPEN_FILES_ENOUGH:
        number = "any number of" if is_unlimited else hard
        return Finding("ok", "limits", f"{number} open files per process")
    level = "FAIL" if hard < OPEN_FILES_MIN else "warn"
    readers = max(hard - OPEN_FILES_OWN, 0)
    advice = f"an API node can serve only about {readers} readers: raise the limit (ulimit -Hn)"
    return Finding(level, "limits", f"{hard} open files per process: {advice}")


def judge_space(free: int, free_min: int, *, is_shared: bool) -> Finding:
    """Judge the free space on the disk of the files.

    Args:
        free: bytes.
        free_min: bytes; with less free space, nodes refuse uploads.
        is_shared: the append-only file of the private Redis is on the same disk.
    """
    text = f"{free / 2**30:.1f} GiB free for files"
    if free < free_min:
        advice = "uploads are refused: make room, or lower TAILRACE_FILES_FREE_BYTES_MIN"
        return Finding("warn", "storage", f"{text}: {advice}")
    if free < 2 * free_min:
        return Finding("warn", "storage", f"{text}: make room before uploads are refused")
    if is_shared and free < SHARED_DISK_BYTES_MIN:
        advice = "Redis's file grows on the same disk: make room, or set TAILRACE_FILES_URL"
        return Finding("warn", "storage", f"{text}: {advice}")
    return Finding("ok", "storage", text)


def judge_answer(model: Model, status: int, names: Sequence[str] | None) -> Finding:
    """Judge the response of a model server to `GET {base_url}/models`.

    Args:
        names: the models in the response; None: the response has another form.
    """
    where = f"{model.name}: {model.base_url}"
    if status in (401, 403):
        variable = f"the key in {model.api_key_env}" if model.api_key_env else "api_key_env"
        return Finding("FAIL", "model", f"{where} answers {status}: set {variable}")
    if status >= 500:
        return Finding("FAIL", "model", f"{where} answers {status}: check that server")
    if status != 200 or names is None:
        return Finding("warn", "model", f"{where} answers, but lists no models: try a prompt")
    if model.name == ANY:
        return Finding("ok", "model", f"{where} has {len(names)} models")
    if model.upstream_name not in names:
        listed = ", ".join(names[:5]) or "no model"
        text = f"{where} lists {listed} and not {model.upstream_name!r}"
        return Finding("warn", "model", f"{text}: correct `model` in the models file")
    return Finding("ok", "model", f"{where} has {model.upstream_name}")


def examine_address(settings: Settings) -> Finding:
    """Check the address to listen on against the credentials and the trusted proxies."""
    where = f"listens on {settings.host}"
    try:
        authenticator = Authenticator.from_settings(settings)
        TrustedProxies.read(settings.trusted_proxies)
    except ConfigurationError as exc:
        return Finding("FAIL", "address", str(exc))
    if authenticator.is_configured:
        needed = "a key or a token" if authenticator.tokens else "a key"
        return Finding("ok", "address", f"{where}, clients need {needed}")
    if settings.is_loopback:
        return Finding("ok", "address", f"{where}: only this machine can connect, without a key")
    text = f"{where} without keys, so everybody in the network has access"
    return Finding("warn", "address", f"{text}: set TAILRACE_API_KEYS")


def examine_variables(environ: Mapping[str, str]) -> list[Finding]:
    """Report the variables of Kubernetes Services, which are ignored."""
    ignored = service_variables(environ)
    if not ignored:
        return []
    advice = "give the pod enableServiceLinks: false, or the Service another name"
    text = f"{', '.join(ignored)} are of a Kubernetes Service and are ignored: {advice}"
    return [Finding("warn", "settings", text)]


def examine_privacy(settings: Settings) -> list[Finding]:
    """Check whether other users of this machine can read what Tailrace stores."""
    try:
        return [Finding("warn", "private", line) for line in open_directories(settings)]
    except ConfigurationError:
        return []  # `examine_files` reports it


def examine_access(settings: Settings) -> list[Finding]:
    """Check for settings that are allowed, but give access to more people than expected."""
    try:
        authenticator = Authenticator.from_settings(settings)
    except ConfigurationError:
        return []  # `examine_address` reports it
    findings = []
    if owners := authenticator.owners_of_short_keys:
        text = f"{len(owners)} keys have fewer than {KEY_CHARACTERS_MIN} characters, of"
        advice = "set longer keys, for example from `openssl rand -hex 16`"
        findings.append(Finding("warn", "keys", f"{text} {named(owners)}: {advice}"))
    if authenticator.tokens is not None and authenticator.tokens.has_short_secret:
        text = "a secret of TAILRACE_JWT_SECRET has fewer than 32 bytes and can be guessed"
        findings.append(Finding("warn", "tokens", f"{text}: use `openssl rand -hex 32`"))
    if is_open_file(settings.api_keys):
        text = "other users of this machine can read the file in TAILRACE_API_KEYS"
        findings.append(Finding("warn", "keys", f"{text}: chmod 600 {settings.api_keys}"))
    if "*" in authenticator.origins and not authenticator.is_configured:
        text = "every website can read and start generations here: set TAILRACE_API_KEYS"
        advice = "or list origins in TAILRACE_CORS_ORIGINS instead of *"
        findings.append(Finding("warn", "origins", f"{text}, {advice}"))
    return findings


async def examine_token_keys(settings: Settings) -> list[Finding]:
    """Check whether the public keys of the issuer can be had."""
    try:
        tokens = Authenticator.from_settings(settings).tokens
    except ConfigurationError:
        return []  # `examine_address` reports it
    if tokens is None or not settings.jwt_jwks:
        return []
    await tokens.look_for_unknown()
    if tokens.problem:
        text = f"{tokens.problem}: correct TAILRACE_JWT_JWKS, or start the issuer"
        return [Finding("warn", "tokens", text)]
    return [Finding("ok", "tokens", "the public keys of TAILRACE_JWT_JWKS can be used")]


def examine_private_server() -> Finding:
    """Check whether `tailrace up` can start a server; used without TAILRACE_REDIS_URL."""
    try:
        path = find_server()
    except ConfigurationError as exc:
        return Finding("FAIL", "redis", str(exc))
    version = ".".join(map(str, server_version(path)))
    text = f"TAILRACE_REDIS_URL is not set, so `tailrace up` starts {path} {version}"
    return Finding("ok", "redis", text)


async def examine_files(settings: Settings) -> Finding:
    """Check the place of the files: list a bucket, or check a directory without creating it."""
    where = settings.files_url.partition("?")[0] or f"{settings.data_dir}/files"
    try:
        objects = ObjectStore(settings)
        if objects.directory is None:
            async with asyncio.timeout(FILES_ANSWER_S):
                await anext(objects.list(), None)
        elif not settings.files_url:
            check_directory(objects.directory)
    except ConfigurationError as exc:
        if settings.files_url:
            return Finding("FAIL", "storage", str(exc))
        text = f"{exc}: roles start, and uploads and batches are refused"
        return Finding("warn", "storage", f"{text}: {ADVICE}")
    except (FilesUnavailable, TimeoutError) as exc:
        why = str(exc) or f"no answer within {FILES_ANSWER_S:.0f} s"
        advice = "check TAILRACE_FILES_URL and its credentials"
        return Finding("FAIL", "storage", f"{where}: {why}: {advice}")
    return Finding("ok", "storage", f"files are in {where}")


def examine_space(settings: Settings) -> list[Finding]:
    """Check the free space for files in a directory; nothing is returned for a bucket."""
    try:
        directory = directory_of(settings)
        if directory is None:
            return []
        free = free_bytes_at(directory)
        own = existing_part(Path(settings.data_dir).resolve())
        is_shared = own.stat().st_dev == existing_part(directory).stat().st_dev
    except (ConfigurationError, OSError, ValueError):  # `examine_files` reports it
        return []
    # With TAILRACE_REDIS_URL there is no private server.
    is_shared = is_shared and not settings.redis_url
    return [judge_space(free, settings.files_free_bytes_min, is_shared=is_shared)]


async def examine_models(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Check the models file and the server of each model."""
    try:
        models = load_models(settings.models, settings.models_skip).tables
    except ConfigurationError as exc:
        return [Finding("FAIL", "models", str(exc))]
    source = settings.models or "built in, because TAILRACE_MODELS is not set"
    timeout = aiohttp.ClientTimeout(total=MODELS_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
        checks = [
            group.create_task(_examine_model(http, model, environ))
            for model in models.values()
            if model.kind.models_path
        ]
    summary = Finding("ok", "models", f"{', '.join(models)} ({source})")
    lacking = [
        Finding("FAIL", "model", f"{name}: {said}")
        for name, model in models.items()
        if (said := missing_parts(model))
    ]
    return [summary, *lacking, *(task.result() for task in checks)]


async def _examine_model(
    http: aiohttp.ClientSession, model: Model, environ: Mapping[str, str]
) -> Finding:
    where = f"{model.name}: {model.base_url}"
    try:
        route = find_route(model, environ)
    except ConfigurationError as exc:
        return Finding("FAIL", "model", str(exc))
    is_tls = model.base_url.startswith("https:")
    try:
        base = urlsplit(model.base_url)  # its query belongs behind the whole path
        path = f"{base.path.rstrip('/')}{model.kind.models_path}"
        query = "&".join(filter(None, (base.query, model.kind.models_query)))
        url = urlunsplit(base._replace(path=path, query=query))
        origin = UpstreamAddress(model.base_url, "", {}, tls=route.tls, proxy=route.proxy).origin
    except ValueError:  # also AddressInvalid
        return Finding("FAIL", "model", f"{where} is no address of a server: correct base_url")
    try:
        # Workers follow no redirects either.
        async with http.get(url, allow_redirects=False, **_way(route, is_tls=is_tls)) as response:
            if (fault := await _set_up_fault(response)) is not None:
                text = f"{where} answers {response.status}: {fault.advice}"
                return Finding("FAIL", "model", text)
            return judge_answer(model, response.status, await _model_names(response))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        return Finding("FAIL", "model", f"{where}: {explain(_as_ours(exc), origin).for_operator}")


async def _set_up_fault(response: aiohttp.ClientResponse) -> SetUpFault | None:
    """Return the fault that a redirect, a proxy's 407, or http to a TLS port shows."""
    if not (300 <= response.status < 400 or response.status in (400, 407)):
        return None
    body = await response.content.read(REFUSAL_BYTES_MAX)
    found = refusal(response.status, body, retry_after=None, now_s=0.0)
    return found if isinstance(found, SetUpFault) else None


def _as_ours(error: Exception) -> Exception:
    """Return the error that a worker would get where aiohttp has one of its own."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ProxyRefused(f"the proxy answered {error.status}", error.status)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ExchangeError("the connection was closed", is_before_response=True)
    if isinstance(error, aiohttp.ClientResponseError) and TLS_ALERT_SHOWN in error.message:
        return AnswerIsTls("the answer is TLS and not HTTP")
    return error


def _way(route: Route, *, is_tls: bool) -> dict[str, Any]:
    """Return aiohttp's arguments for a request on this route."""
    way: dict[str, Any] = {"ssl": client_context(route.tls), "headers": dict(route.headers)}
    if route.proxy is not None:
        way["proxy"] = f"http://{route.proxy.authority}"
        if route.proxy.authorization:
            # aiohttp sends `proxy_headers` only with a CONNECT.
            for_proxy = way.setdefault("proxy_headers", {}) if is_tls else way["headers"]
            for_proxy["Proxy-Authorization"] = route.proxy.authorization
    return way


async def _model_names(response: aiohttp.ClientResponse) -> list[str] | None:
    """Read the list of a server; None if it has another form, is too long, or has a next page.

    The forms are `{"data": [{"id": …}, …]}`, and Gemini's `{"models": [{"name": "models/…"}, …]}`.
    """
    if response.status != 200 or (response.content_length or 0) > MODELS_ANSWER_BYTES_MAX:
        return None
    try:
        body = await response.json(content_type=None)
        if body.get("has_more") or body.get("nextPageToken"):
            return None
        if "models" in body:
            return [str(entry["name"]).removeprefix("models/") for entry in body["models"]]
        return [str(entry["id"]) for entry in body["data"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
