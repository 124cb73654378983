"""Reads error bodies of model servers, in the forms of all known families. Pure.

    OpenAI, Azure        {"error": {"message", "type", "param", "code", "innererror"?}}
    vLLM                 the same with a number as the code; before: {"object": "error", …}
    llama.cpp            {"error": {"code", "message", "type", "n_prompt_tokens", "n_ctx"}}
    Ollama, TGI, xAI     {"error": "text", "error_type"?, "code"?}
    Gemini               [{"error": {"code", "message", "status", "details"}}]
    Anthropic            {"type": "error", "error": {"type", "message"}}
    OpenRouter           {"error": {"code", "message", "metadata": {"raw": another server's error}}}
    FastAPI              {"detail": "text"}, {"detail": [{"loc", "msg", "type", "input"}]}
    MiniMax              {"base_resp": {"status_code", "status_msg"}}
    Zhipu, DashScope     {"code", "msg"}, {"code", "message"}
    Cloudflare           {"success": false, "errors": [{"code", "message"}]}
    proxies              an HTML page, or plain text

Invariant: any bytes give an `ErrorBody`; its parts are bounded, and none is redacted yet. Does not
decide what an error means: workers/backends/reading/error_meaning.py does.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from shared.text.json_values import has_too_many_values

# Characters of a server's message; of its code, type and param. They are redacted after this cut,
# and then cut shorter, so that no half of a credential remains.
MESSAGE_MAX = 2_000
NAME_MAX = 1_000
PAGE_CHARACTERS_MAX = 8_000  # of an HTML page; its title stands in the first lines
DEPTH_MAX = 4  # of errors in errors
NAMES_MAX = 16  # that tell what an error means
PARTS_MAX = 5  # of a FastAPI error that are quoted

_MESSAGES = ("message", "msg", "error_msg", "errorMessage", "status_msg", "detail", "error")
_CODES = ("code", "error_code", "errorCode", "status_code")
_STATUSES = (*_CODES, "status")
_TYPES = ("type", "error_type", "__type", "status")  # Gemini's status is a word
# The members that hold the error itself.
_WRAPPERS = ("error", "detail", "errors", "base_resp")
# OpenRouter's sentence around the error of another server.
_EMPTY_MESSAGES = ("", "Provider returned error")
_GOOD_CODES = (None, 0, "0", 200, "200", "", "success", "Success", "ok", "OK")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_LITELLM = re.compile(r"litellm\.(\w+)")  # the name of the exception, in front of the message


class ErrorBody(NamedTuple):
    """An error as a server wrote it.

    Attributes:
        message: for a person.
        status: the HTTP status that the body names.
        code, type, param: None: absent, or not a text. A number that is no HTTP status is a text.
        names: in lower case, all words that tell what the error means.
        form: `error`: JSON with a message; `json`: other JSON; `page`: HTML; `text`; `empty`.
    """

    message: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    names: tuple[str, ...] = ()
    form: str = "error"


def read_error(body: bytes) -> ErrorBody:
    """Read the body of an error response, or the data of an event that is an error."""
    try:
        if has_too_many_values(body):
            raise ValueError("decoding would block the other runs for too long")
        found: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return _read_text(body)
    return _read_value(found, 0)


def is_error(document: dict[str, Any]) -> bool:
    """Whether a JSON object inside a stream is an error and not a part of an answer."""
    if document.get("error") or "error" in (document.get("object"), document.get("type")):
        return True
    base = document.get("base_resp")
    if isinstance(base, dict) and base.get("status_code") not in _GOOD_CODES:
        return True
    if document.get("choices") or document.get("usage"):
        return False
    if document.get("success") is False or document.get("detail"):
        return True
    code = document.get("code", document.get("error_code"))
    has_message = any(
        isinstance(document.get(name), str) for name in ("message", "msg", "error_msg")
    )
    return has_message and isinstance(code, str | int) and code not in _GOOD_CODES


def is_error_array(payload: bytes) -> bool:
    """Whether data inside a stream is an array with an error, as Gemini sends it."""
    if not payload.startswith(b"["):
        return False
    try:
        found = [] if has_too_many_values(payload) else msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return False
    return bool(found) and isinstance(found[0], dict) and is_error(found[0])


def _read_text(body: bytes) -> ErrorBody:
    # Lossy decoding is fine here: this text is only shown to a person.
    text = body[:PAGE_CHARACTERS_MAX].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = _TITLE.search(text)
        inner = html.unescape(title[1] if title else _TAGS.sub(" ", text))
        said = " ".join(inner.split())[:MESSAGE_MAX]
        return ErrorBody(f"an HTML page: {said}" if said else "an HTML page", form="page")
    if not text:
        return ErrorBody("no message", form="empty")
    return ErrorBody(" ".join(text.split())[:MESSAGE_MAX], form="text")


def _read_value(value: Any, depth: int) -> ErrorBody:
    """Read decoded JSON."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and depth < DEPTH_MAX:
        if "msg" in value[0]:
            return _read_fields(value)
        return _read_value(value[0], depth + 1)
    if not isinstance(value, dict):
        text = value if isinstance(value, str) else str(value or "no message")
        return ErrorBody(text[:MESSAGE_MAX], form="text" if value else "empty")
    for holder in _holders(value):
        if depth < DEPTH_MAX:
            inner = _read_value(holder, depth + 1)
            return inner._replace(status=inner.status or _status(value))
    return _read_object(value, depth)


def _holders(value: dict[str, Any]) -> Iterator[Any]:
    """Yield the error inside of a wrapper, at most one."""
    for name in _WRAPPERS:
        found = value.get(name)
        if found and isinstance(found, dict | list):
            yield found
            return
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            yield choice["error"]
            return


def _read_object(found: dict[str, Any], depth: int) -> ErrorBody:
    message = next((found[name] for name in _MESSAGES if found.get(name)), None)
    has_message = isinstance(message, str)
    if not isinstance(message, str):
        message = msgspec.json.encode(found if message is None else message).decode()
    code = next((name for key in _CODES if (name := _name(found.get(key)))), None)
    kind = next((name for key in _TYPES if (name := _name(found.get(key)))), None)
    error = ErrorBody(
        f"{message}{_tokens(found, message)}"[:MESSAGE_MAX],
        _status(found),
        code,
        kind,
        _name(found.get("param")),
        tuple(_names(found, code, kind, message))[:NAMES_MAX],
        "error" if has_message else "json",
    )
    return _with_raw(error, found, depth)


def _with_raw(error: ErrorBody, found: dict[str, Any], depth: int) -> ErrorBody:
    """Add the error that a router quotes of the server behind it."""
    metadata = found.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not raw or depth >= DEPTH_MAX:
        return error
    if isinstance(raw, str):
        try:
            raw = msgspec.json.decode(raw)  # a part of a document whose values were counted, …
        except (ValueError, RecursionError):
            return error._replace(message=_fuller(error.message, raw))
        if has_too_many_values(msgspec.json.encode(raw)):  # … except those in a string
            return error
    inner = _read_value(raw, depth + 1)
    return error._replace(
        message=_fuller(error.message, inner.message),
        status=error.status or inner.status,
        code=error.code or inner.code,
        type=error.type or inner.type,
        param=error.param or inner.param,
        names=(*error.names, *inner.names)[:NAMES_MAX],
    )


def _read_fields(items: list[Any]) -> ErrorBody:
    """Read FastAPI's list of invalid fields. Their `input` is left out: it repeats the prompt."""
    said, param = [], None
    for item in items[:PARTS_MAX]:
        if not isinstance(item, dict):
            continue
        place = item.get("loc")
        parts = [str(part) for part in place if part != "body"] if isinstance(place, list) else []
        where = ".".join(parts)
        param = param or _name(where)
        said.append(f"{where}: {item.get('msg')}" if where else str(item.get("msg")))
    return ErrorBody("; ".join(said)[:MESSAGE_MAX] or "no message", param=param)


def _names(found: dict[str, Any], code: Any, kind: Any, message: str) -> Iterator[str]:
    for name in (code, kind, _name(found.get("status"))):
        if name:
            yield name.lower()
    inner = found.get("innererror")
    if isinstance(inner, dict) and (name := _name(inner.get("code"))):
        yield name.lower()
    metadata = found.get("metadata")
    if isinstance(metadata, dict):
        if name := _name(metadata.get("error_type")):
            yield name.lower()
        if metadata.get("flagged_input") or metadata.get("reasons"):
            yield "content_policy_violation"  # OpenRouter's moderation
    details = found.get("details")
    for detail in details[:NAMES_MAX] if isinstance(details, list) else ():
        if isinstance(detail, dict) and (name := _name(detail.get("reason"))):
            yield name.lower()
    if "status_msg" in found:
        yield f"base_resp {found.get('status_code')}"[:NAME_MAX]  # MiniMax has numbers of its own
    for match in _LITELLM.finditer(message[:MESSAGE_MAX]):
        yield match[1].lower()


def _name(value: Any) -> str | None:
    """Return a code, type or param as a text; None: it says nothing, or is an HTTP status."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()[:NAME_MAX]
    if text in ("", "0", "None", "null") or _as_status(value) is not None:
        return None
    return text


def _status(found: dict[str, Any]) -> int | None:
    return next(
        (status for key in _STATUSES if (status := _as_status(found.get(key))) is not None), None
    )


def _as_status(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal():
        value = int(value[:9])
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 100 <= value <= 599 else None


def _fuller(outer: str, inner: str) -> str:
    if outer in _EMPTY_MESSAGES:
        return inner[:MESSAGE_MAX]
    return outer if inner in outer else f"{outer}: {inner}"[:MESSAGE_MAX]


def _tokens(found: dict[str, Any], message: str) -> str:
    """Return llama.cpp's two numbers, by which clients compute how much they must leave out."""
    prompt, context = found.get("n_prompt_tokens"), found.get("n_ctx")
    if not isinstance(prompt, int) or not isinstance(context, int) or str(prompt) in message:
        return ""
    return f" ({prompt} tokens in the prompt, {context} in the context)"
