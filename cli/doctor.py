"""`tailrace doctor`: looks at everything that a role will need, and says what to do about it.

One line per finding: ok, warn or FAIL. What is judged is pure and stands first; the looking stands
below it. Invariant: a finding that is not ok says what to do. Changes nothing anywhere.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from redis.exceptions import ResponseError

from api.edge.auth import Authenticator
from api.transport.peer import Peers
from cli.up.privacy import is_open_file, open_directories
from cli.up.private_server import VERSION_MIN, find_server, parse_version, server_version
from shared.config.credentials import KEY_CHARACTERS_MIN, named
from shared.config.models import Model, load_models
from shared.config.settings import Settings
from shared.errors import ConfigurationError, FilesUnavailable, Unavailable
from shared.files.objects import ObjectStore, directory_of, existing_part, free_bytes_at
from shared.redis.client import Client, connect, translated
from shared.text.plain_text import plain_line
from shared.text.redaction import redact

PYTHON_MIN = (3, 11)
MODELS_ANSWER_S = 3.0
FILES_ANSWER_S = 10.0
ANSWER_BYTES_MAX = 4_194_304
FILES_MIN = 256  # below it a node cannot serve anybody
FILES_ENOUGH = 4_096
FILES_OWN = 64  # what a process needs beside its readers
SHARED_BYTES_MIN = 5 * 2**30  # its append-only file is written anew beside the old one
PUBSUB_BYTES_MIN = 33_554_432  # Redis's own default
MAXMEMORY_SHARE = 0.5  # of the memory where Redis runs


class Finding(NamedTuple):
    level: str  # ok, warn or FAIL
    subject: str
    text: str


def doctor(settings: Settings) -> int:
    """Print what was found; return 1 if anything is a FAIL."""
    findings = asyncio.run(examine(settings, os.environ))
    for finding in findings:
        # Servers choose some of these words, and URLs may hold passwords.
        text = plain_line(redact(" ".join(finding.text.split())))
        print(f"{finding.level:<5} {finding.subject:<8} {text}")
    return int(any(finding.level == "FAIL" for finding in findings))


async def examine(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything; `environ` holds the keys that the models file names."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # roles raise the soft limit themselves
    return [
        judge_python(sys.version_info[:3]),
        judge_files(files, is_unlimited=files == resource.RLIM_INFINITY),
        examine_address(settings),
        *examine_doors(settings),
        *(await examine_redis(settings) if settings.redis_url else [examine_private_server()]),
        await examine_files(settings),
        *examine_space(settings),
        *examine_privacy(settings),
        *(await examine_models(settings, environ)),
    ]


def judge_python(version: tuple[int, ...]) -> Finding:
    text = ".".join(map(str, version))
    if version[:2] < PYTHON_MIN:
        return Finding("FAIL", "python", f"{text}: install 3.11 or newer")
    return Finding("ok", "python", text)


def judge_files(hard: int, *, is_unlimited: bool = False) -> Finding:
    """Judge how many files a process may open: each reader is one."""
    if is_unlimited or hard >= FILES_ENOUGH:
        return Finding("ok", "files", f"{'any number' if is_unlimited else hard} per process")
    level = "FAIL" if hard < FILES_MIN else "warn"
    readers = max(hard - FILES_OWN, 0)
    advice = f"raise the limit (ulimit -Hn): one API node can serve about {readers} readers"
    return Finding(level, "files", f"{hard} per process: {advice}")


def judge_server(info: Mapping[str, Any]) -> list[Finding]:
    """Judge what INFO says of version, eviction and the append-only file."""
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    compatible = parse_version(f"v={info.get('redis_version', '')}")
    findings = [Finding("ok", "redis", f"version {version}")]
    if compatible < VERSION_MIN:
        findings = [Finding("FAIL", "redis", f"version {version or 'unknown'}: needs 6.2 or newer")]
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        findings.append(Finding("ok", "redis", "maxmemory-policy noeviction"))
    else:
        advice = "set noeviction, or eviction takes a generation's keys apart"
        findings.append(Finding("FAIL", "redis", f"maxmemory-policy is {policy}: {advice}"))
    if info.get("aof_enabled"):
        findings.append(Finding("ok", "redis", "append-only file on"))
    else:
        advice = "set appendonly yes, or a restart of Redis loses every stream"
        findings.append(Finding("warn", "redis", f"append-only file off: {advice}"))
    return [*findings, judge_memory(info)]


def judge_memory(info: Mapping[str, Any]) -> Finding:
    """Judge what INFO says of the memory that the server may take."""
    bound, machine = int(info.get("maxmemory", 0)), int(info.get("total_system_memory", 0))
    if not bound:
        advice = "set it to less than half of its memory, or full memory kills the server"
        return Finding("warn", "redis", f"maxmemory is not set: {advice}")
    if machine and bound > machine * MAXMEMORY_SHARE:
        advice = "set less than half: a rewrite of the append-only file may take as much again"
        return Finding("warn", "redis", f"maxmemory is {bound} of {machine} bytes: {advice}")
    return Finding("ok", "redis", f"maxmemory {bound} bytes")


def judge_pubsub_limit(value: str) -> Finding:
    """Judge client-output-buffer-limit: `normal 0 0 0 slave … pubsub <hard> <soft> <seconds>`."""
    words = value.split()
    if "pubsub" not in words[:-1]:
        return Finding("warn", "redis", "CONFIG GET is refused: see that pubsub buffers are 32mb")
    hard = int(words[words.index("pubsub") + 1])
    if hard == 0 or hard >= PUBSUB_BYTES_MIN:
        return Finding("ok", "redis", f"pubsub buffer {hard or 'unlimited'} bytes")
    advice = "set client-output-buffer-limit 'pubsub 32mb 8mb 60', or busy nodes are cut off"
    return Finding("warn", "redis", f"pubsub buffer {hard} bytes: {advice}")


def judge_space(free: int, free_min: int, *, is_shared: bool) -> Finding:
    """Judge what is free on the disk of the files.

    Args:
        free_min: below it, uploads are refused.
        is_shared: the private server's append-only file grows on the same disk.
    """
    text = f"{free / 2**30:.1f} GiB are free for files"
    if free < free_min:
        advice = "uploads are refused: make room, or lower TAILRACE_FILES_FREE_BYTES_MIN"
        return Finding("warn", "storage", f"{text}: {advice}")
    if free < 2 * free_min:
        return Finding("warn", "storage", f"{text}: make room before uploads are refused")
    if is_shared and free < SHARED_BYTES_MIN:
        advice = "Redis's file grows on the same disk: make room, or set TAILRACE_FILES_URL"
        return Finding("warn", "storage", f"{text}: {advice}")
    return Finding("ok", "storage", text)


def judge_answer(model: Model, status: int, names: Sequence[str] | None) -> Finding:
    """Judge what a model's server answered to `GET {base_url}/models`.

    Args:
        names: the models that it lists; None: its answer was not of that form.
    """
    where = f"{model.name}: {model.base_url}"
    if status in (401, 403):
        variable = f"the key in {model.api_key_env}" if model.api_key_env else "api_key_env"
        return Finding("FAIL", "model", f"{where} answers {status}: set {variable}")
    if status >= 500:
        return Finding("FAIL", "model", f"{where} answers {status}: look at that server")
    if status != 200 or names is None:
        return Finding("warn", "model", f"{where} answers, but lists no models: try a prompt")
    if model.upstream_name not in names:
        listed = ", ".join(names[:5]) or "none"
        return Finding("warn", "model", f"{where} lists no {model.upstream_name!r} but {listed}")
    return Finding("ok", "model", f"{where} has {model.upstream_name}")


def examine_address(settings: Settings) -> Finding:
    where = f"listens on {settings.host}"
    try:
        authenticator = Authenticator.from_settings(settings)
        Peers.read(settings.trusted_proxies)
    except ConfigurationError as exc:
        return Finding("FAIL", "address", str(exc))
    if authenticator.is_configured:
        return Finding("ok", "address", f"{where}, credentials are asked for")
    if settings.is_loopback:
        return Finding("ok", "address", f"{where}: this machine only, no credentials")
    return Finding("warn", "address", f"{where} and lets everybody in: set TAILRACE_API_KEYS")


def examine_privacy(settings: Settings) -> list[Finding]:
    """What others on this machine could read; nothing where that is nothing."""
    try:
        return [Finding("warn", "private", line) for line in open_directories(settings)]
    except ConfigurationError:
        return []  # said of the files already


def examine_doors(settings: Settings) -> list[Finding]:
    """What is allowed, and lets in more people than it may look like."""
    try:
        authenticator = Authenticator.from_settings(settings)
    except ConfigurationError:
        return []  # `examine_address` has said so
    findings = []
    if owners := authenticator.owners_of_short_keys:
        text = f"{len(owners)} with fewer than {KEY_CHARACTERS_MIN} characters, of {named(owners)}"
        advice = "give longer ones, for example from `openssl rand -hex 16`"
        findings.append(Finding("warn", "keys", f"{text}: {advice}"))
    if is_open_file(settings.api_keys):
        text = "others on this machine can read the file that TAILRACE_API_KEYS names"
        findings.append(Finding("warn", "keys", f"{text}: chmod 600 {settings.api_keys}"))
    if "*" in authenticator.origins and not authenticator.is_configured:
        text = "every website may read and start everything here: set TAILRACE_API_KEYS"
        advice = "or list the origins in TAILRACE_CORS_ORIGINS instead of *"
        findings.append(Finding("warn", "origins", f"{text}, {advice}"))
    return findings


def examine_private_server() -> Finding:
    """Without TAILRACE_REDIS_URL: could `tailrace up` start a server?"""
    try:
        path = find_server()
    except ConfigurationError as exc:
        return Finding("FAIL", "redis", str(exc))
    version = ".".join(map(str, server_version(path)))
    return Finding("ok", "redis", f"TAILRACE_REDIS_URL is not set: up starts {path} {version}")


async def examine_redis(settings: Settings) -> list[Finding]:
    try:
        client = connect(settings)
    except ConfigurationError as exc:
        return [Finding("FAIL", "redis", str(exc))]
    try:
        with translated():
            info: dict[str, Any] = {}
            for section in ("server", "memory", "persistence"):
                info |= await client.info(section)
            return [*judge_server(info), judge_pubsub_limit(await _pubsub_limit(client))]
    except Unavailable as exc:
        return [
            Finding("FAIL", "redis", f"{exc}: see that it runs and TAILRACE_REDIS_URL is right")
        ]
    except ResponseError as exc:
        return [Finding("FAIL", "redis", f"INFO is refused ({exc}): allow it to this user")]
    finally:
        await client.aclose()


async def _pubsub_limit(client: Client) -> str:
    """Return the setting, or nothing where CONFIG is not allowed, as on many hosted servers."""
    try:
        answer = await client.config_get("client-output-buffer-limit")
    except ResponseError:
        return ""
    return str(answer.get("client-output-buffer-limit", ""))


async def examine_files(settings: Settings) -> Finding:
    """Where files lie: a bucket is asked for a list, a directory is looked at and not made."""
    where = settings.files_url.partition("?")[0] or f"{settings.data_dir}/files"
    try:
        objects = ObjectStore(settings)
        if objects.directory is None:
            async with asyncio.timeout(FILES_ANSWER_S):
                await anext(objects.list(), None)
    except ConfigurationError as exc:
        return Finding("FAIL", "storage", str(exc))
    except (FilesUnavailable, TimeoutError) as exc:
        why = str(exc) or f"no answer within {FILES_ANSWER_S:.0f} s"
        advice = "see that TAILRACE_FILES_URL and its credentials are right"
        return Finding("FAIL", "storage", f"{where}: {why}: {advice}")
    return Finding("ok", "storage", f"files lie in {where}")


def examine_space(settings: Settings) -> list[Finding]:
    """Whether files in a directory have room, and leave some to the file of `up`'s own server."""
    try:
        directory = directory_of(settings)
        if directory is None:
            return []
        free = free_bytes_at(directory)
        own = existing_part(Path(settings.data_dir).resolve())
        is_shared = own.stat().st_dev == existing_part(directory).stat().st_dev
    except (ConfigurationError, OSError, ValueError):  # `examine_files` says so
        return []
    # A server elsewhere has its file elsewhere.
    is_shared = is_shared and not settings.redis_url
    return [judge_space(free, settings.files_free_bytes_min, is_shared=is_shared)]


async def examine_models(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    try:
        models = load_models(settings.models)
    except ConfigurationError as exc:
        return [Finding("FAIL", "models", str(exc))]
    source = settings.models or "built in: TAILRACE_MODELS is not set"
    timeout = aiohttp.ClientTimeout(total=MODELS_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_examine_model(http, model, environ))
            for model in models.values()
            if model.backend == "openai"
        ]
    known = Finding("ok", "models", f"{', '.join(models)} ({source})")
    return [known, *(task.result() for task in asked)]


async def _examine_model(
    http: aiohttp.ClientSession, model: Model, environ: Mapping[str, str]
) -> Finding:
    where = f"{model.name}: {model.base_url}"
    key = environ.get(model.api_key_env, "").strip() if model.api_key_env else ""
    if model.api_key_env and not key:
        return Finding("FAIL", "model", f"{where} needs a key: set {model.api_key_env}")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with http.get(f"{model.base_url.rstrip('/')}/models", headers=headers) as response:
            return judge_answer(model, response.status, await _model_names(response))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
        why = str(exc) or f"no answer within {MODELS_ANSWER_S:.0f} s"
        return Finding("FAIL", "model", f"{where}: {why}: see that this server runs")


async def _model_names(response: aiohttp.ClientResponse) -> list[str] | None:
    """Read `{"data": [{"id": …}, …]}`; None when it is something else or too long."""
    if response.status != 200 or (response.content_length or 0) > ANSWER_BYTES_MAX:
        return None
    try:
        data = (await response.json(content_type=None))["data"]
        return [str(entry["id"]) for entry in data]
    except (ValueError, KeyError, TypeError):
        return None
