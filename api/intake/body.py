"""Request bodies: decoded strictly, checked member by member.

Invariant: whatever the bytes are, the result is a `NewGeneration` or a `RequestError` with a 4xx
status. 400 means that the body is not JSON as api/intake/strict_json.py accepts it; 422 means that
a member is wrong. Parsing is pure; api/intake/arriving_body.py reads the bytes, and
api/intake/large_body.py does the work on large ones in steps. This module reads the members that
all dialects share (model, session, metadata, priority, on_disconnect, and the time limits). A
dialect makes a `Request` of the other members, and passes both to `check_members`.
Source: docs/protocol.md, "HTTP".
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from api.errors import request_error
from api.intake.audio_members import check_takes_audio, read_audio
from api.intake.part_urls import check_urls
from api.intake.schedule_members import is_scheduled
from api.intake.strict_json import decode_json
from api.intake.time_limit_members import read_time_limits
from api.intake.webhook_members import read_webhook
from shared.config.credentials import SESSION_CHARACTERS_MAX
from shared.config.models import ANY, Model
from shared.config.settings import Settings
from shared.errors import RequestError
from shared.later.webhooks import Webhook
from shared.log.request import Request, encode_dialect, encode_request, shown_prompt
from shared.queue.accept import NewGeneration
from shared.queue.allowance import estimated_tokens
from shared.text.large import LongTexts, joined

METADATA_BYTES_MAX = 16 * 1024
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
GRACE_S_MAX = 86_400.0  # on_disconnect
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_RESULT_ROLES = ("tool", "function")  # a tool may have nothing to say
# Members of an assistant's message that may stand without a content. The last three are members of
# servers that show their reasoning (DeepSeek and vLLM, OpenRouter).
_INSTEAD_OF_CONTENT = (
    "tool_calls", "function_call", "refusal", "audio",
    "reasoning_content", "reasoning", "reasoning_details",
)  # fmt: skip
PRIORITIES = ("interactive", "batch")
# The body has these members itself; in `params` they could contradict the body.
RESERVED_PARAMS = ("model", "messages", "prompt", "stream", "stream_options")

_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


def parse_new_generation(
    raw: bytes | Mapping[str, Any],
    *,
    owner: str,
    models: Mapping[str, Model],
    settings: Settings,
    idempotency_key: str = "",
) -> NewGeneration:
    """Return the generation that a native body asks for.

    Args:
        raw: the body, or the result of `decode_json` (of a WebSocket frame).
        models: by name; the first one is the default.

    Raises:
        RequestError: 400 not JSON, or a bad key; 404 `model_not_found`; 413 too large; 422 for a
            wrong member.
    """
    return check_native(
        raw, owner=owner, models=models, settings=settings, idempotency_key=idempotency_key
    ).encoded()


def check_native(
    raw: bytes | Mapping[str, Any],
    *,
    owner: str,
    models: Mapping[str, Model],
    settings: Settings,
    idempotency_key: str = "",
) -> CheckedMembers:
    """Do what `parse_new_generation` does, without encoding the request.

    Raises:
        RequestError: as `parse_new_generation`.
    """
    body = read_object(raw, bytes_max=settings.body_bytes_max)
    if is_scheduled(body):
        raise invalid_request("run_at and cron are for POST /v1/generations and /v1/batches")
    if body.get("producer") not in (None, False):
        raise invalid_request("producer is for POST /v1/generations, answered in application/json")
    audio = read_audio(body)
    is_only_audio = audio and "prompt" not in body and "messages" not in body
    messages = [] if is_only_audio else read_messages(body)
    checked = check_members(
        body, Request(messages, check_params(body), audio=audio), owner=owner, models=models,
        settings=settings, idempotency_key=idempotency_key, webhook=read_webhook(body, settings),
    )  # fmt: skip
    if not audio:
        return checked
    check_takes_audio(models[checked.new.model])
    return replace(checked, new=replace(checked.new, audio=audio))


def read_object(raw: bytes | Mapping[str, Any], *, bytes_max: int) -> dict[str, Any]:
    """Return the members of a body without those that are null: null means the same as absent.

    Raises:
        RequestError: 400 not JSON; 413 larger than `bytes_max`; 422 not an object.
    """
    if isinstance(raw, bytes):
        if len(raw) > bytes_max:
            raise too_large(bytes_max)
        raw = decode_json(raw)
    if not isinstance(raw, Mapping):
        raise invalid_request("the body must be an object")
    # Many clients also send the members that are not set, as null.
    return {name: value for name, value in raw.items() if value is not None}


def check_members(
    body: Mapping[str, Any],
    request: Request,
    *,
    owner: str,
    models: Mapping[str, Model],
    settings: Settings,
    idempotency_key: str = "",
    grace_s: float | None = None,
    webhook: Webhook | None = None,
) -> CheckedMembers:
    """Read the members that all dialects share, and join them with the dialect's `request`.

    Args:
        body: as `read_object` returns it; unknown members are ignored.
        models: by name; the first one is the default.
        grace_s: used if the body has no `on_disconnect`: seconds that the generation goes on
            without readers; None: without limit.

    Raises:
        RequestError: 400 a bad key; 404 `model_not_found`; 422 for a wrong member.
    """
    check_urls(request, settings)
    model, session, metadata = _model(body, models), read_session(body), read_metadata(body)
    priority = read_priority(body)
    if (rules := models[model].rules).forward:
        params = rules.forwarded(body, request.params)
        request = msgspec.structs.replace(request, params=params)
    if "on_disconnect" in body:
        grace_s = read_grace_s(body["on_disconnect"])
    new = NewGeneration(
        owner=owner,
        model=model,
        request=b"",
        session=session,
        metadata=metadata,
        priority=priority,
        grace_s=grace_s,
        idempotency_key=check_idempotency_key(idempotency_key) if idempotency_key else "",
        webhook=webhook,
        time_limits=read_time_limits(body),
        prompt=shown_prompt(request),
        tokens=estimated_tokens(request),
        dialect=encode_dialect(request),
    )
    return CheckedMembers(new, request)


@dataclass(frozen=True, slots=True)
class CheckedMembers:
    """A prompt whose members have been checked, and whose request is not encoded yet.

    Attributes:
        new: without `request` and `body_digest`.
    """

    new: NewGeneration
    request: Request

    def encoded(self) -> NewGeneration:
        return replace(
            self.new,
            request=encode_request(self.request),
            body_digest=hashlib.sha256(self._meaning(self.request)).hexdigest(),
        )

    async def encoded_in_steps(self) -> NewGeneration:
        """Return the same as `encoded`. The event loop runs between the steps."""
        texts, request = LongTexts(), self.request
        marked = Request(
            messages=await texts.taken(request.messages),
            params=await texts.taken(request.params),
            dialect=await texts.taken(request.dialect),
        )
        raw = await joined(texts.parts(encode_request(marked)))
        meaning = texts.parts(self._meaning(marked))
        digest = await asyncio.to_thread(_digest_of, meaning)
        return replace(self.new, request=raw, body_digest=digest)

    def _meaning(self, request: Request) -> bytes:
        """Encode the parsed values, so that the order of members and white space do not matter.

        Without the time limits: a client that repeats a request may have less time left.
        """
        new = self.new
        metadata = _encode_canonical(msgspec.json.decode(new.metadata))
        meaning = [new.model, request, new.session, metadata, new.priority, new.grace_s]
        if new.producer is not None:
            meaning += ["producer"]
        # Without a webhook the digest stays equal to the digest of versions before webhooks.
        return _encode_canonical(meaning if new.webhook is None else [*meaning, new.webhook])


def _digest_of(parts: Iterable[bytes]) -> str:
    """Hash parts one after the other. The hash releases the interpreter while it runs."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def check_idempotency_key(key: str) -> str:
    """Return `key` unchanged.

    Raises:
        RequestError: 400, `key` is not 1 to 255 visible ASCII characters.
    """
    if IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise request_error(
            "idempotency_key_invalid", "Idempotency-Key: 1 to 255 visible ASCII characters"
        )
    return key


def read_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if ("prompt" in body) == ("messages" in body):
        raise invalid_request("give either prompt or messages")
    if "prompt" in body:
        prompt = body["prompt"]
        if not isinstance(prompt, str) or not prompt:
            raise invalid_request("prompt must be a string that is not empty")
        return [{"role": "user", "content": prompt}]
    return check_messages(body["messages"])


def check_messages(messages: Any) -> list[dict[str, Any]]:
    """Return `messages` unchanged: chat messages as backends take them.

    Raises:
        RequestError: 422, not a list of messages, or a wrong role or content.
    """
    if not isinstance(messages, list) or not messages:
        raise invalid_request("messages must be an array that is not empty")
    for index, message in enumerate(messages):
        _check_message(f"messages[{index}]", message)
    return messages


def _check_message(where: str, message: Any) -> None:
    """Check role and content; other members (name, tool_calls, …) are not checked."""
    if not isinstance(message, dict):
        raise invalid_request(f"{where} must be an object")
    if message.get("role") not in ROLES:
        raise invalid_request(f"{where}.role must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if content == [] and _may_lack_content(message):
        return
    if isinstance(content, list):
        if not content or not all(_is_part(part) for part in content):
            raise invalid_request(f"{where}.content: every part must be an object with a type")
    elif content is None:
        if not _may_lack_content(message):
            raise invalid_request(f"{where}.content is missing")
    elif not isinstance(content, str):
        raise invalid_request(f"{where}.content must be a string or an array of parts")


def _may_lack_content(message: dict[str, Any]) -> bool:
    """Whether `content` may be null or an empty array: the message says something without it."""
    if message["role"] in _RESULT_ROLES:
        return True
    calls = message.get("tool_calls")
    if calls and not isinstance(calls, list):
        return False
    return message["role"] == "assistant" and any(message.get(name) for name in _INSTEAD_OF_CONTENT)


def _is_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str)


def check_params(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the member `params`, which goes to the backend; {} if it is absent.

    Raises:
        RequestError: 422, not an object, a reserved name, or `n` other than 1.
    """
    params = body.get("params", {})
    if not isinstance(params, dict):
        raise invalid_request("params must be an object")
    for name in RESERVED_PARAMS:
        if name in params:
            raise invalid_request(f"params.{name} cannot be set")
    if params.get("n", 1) != 1:
        raise invalid_request("params.n: one generation is one answer")
    return params


def _model(body: Mapping[str, Any], models: Mapping[str, Model]) -> str:
    name = body.get("model", next(iter(models), ANY))  # a server's list may not be here yet
    if not isinstance(name, str):
        raise invalid_request("model must be a string")
    if name not in models:
        raise model_not_found(name)
    return name


def read_session(body: Mapping[str, Any]) -> str:
    """Accept any text as a name, except control characters: logs and URLs must not hold them."""
    session = body.get("session", "")
    if not isinstance(session, str):
        raise invalid_request("session must be a string")
    if len(session) > SESSION_CHARACTERS_MAX:
        raise invalid_request(f"session must be at most {SESSION_CHARACTERS_MAX} characters long")
    if has_controls(session):
        raise invalid_request("session must not hold control characters")
    return session


def has_controls(text: str) -> bool:
    """Whether a text holds control characters of ASCII or Latin-1."""
    return any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text)


def read_metadata(body: Mapping[str, Any]) -> bytes:
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise invalid_request("metadata must be an object")
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > METADATA_BYTES_MAX:
        raise invalid_request(f"metadata must be at most {METADATA_BYTES_MAX} bytes of JSON")
    return encoded


def read_priority(body: Mapping[str, Any]) -> str:
    priority = body.get("priority", PRIORITIES[0])
    if priority not in PRIORITIES:
        raise invalid_request(f"priority must be one of {', '.join(PRIORITIES)}")
    return str(priority)


def upstream_priority(body: dict[str, Any]) -> dict[str, Any]:
    """Take a numeric `priority` out of the body, and return it as a member for the backend.

    OpenAI's dialects call this: vLLM's scheduler takes a number under that name, and ours is a
    word. {}: there is none.
    """
    priority = body.get("priority")
    if isinstance(priority, bool) or not isinstance(priority, int | float):
        return {}
    return {"priority": body.pop("priority")}


def read_grace_s(value: Any) -> float | None:
    """Return `on_disconnect` in seconds; None: go on without readers; 0: cancel at once."""
    if value == "continue":
        return None
    if value == "cancel":
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_request("on_disconnect must be continue, cancel or a number of seconds")
    if not 0 <= value <= GRACE_S_MAX or not math.isfinite(value):
        raise invalid_request(f"on_disconnect: 0 to {GRACE_S_MAX:.0f} seconds")
    return float(value)


def model_not_found(name: str) -> RequestError:
    """Return the 404 error for a model name that is not in the models file."""
    return request_error("model_not_found", f"no model {name[:80]!r}: GET /v1/models lists them")


def invalid_request(message: str) -> RequestError:
    """Return the 422 error for a body that is JSON but has a wrong member."""
    return request_error("invalid_request", message)


def too_large(bytes_max: int) -> RequestError:
    """Return the 413 error for a body of more than `bytes_max` bytes."""
    return request_error("body_too_large", f"the body is larger than {bytes_max} bytes")
